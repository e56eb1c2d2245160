"""A clock that stands still while its process cannot hear: what was silent meanwhile may have spoken."""

STALLED_US = 1_000_000
"""Nobody looked for so long: the process was stopped, or its loop was busy, and what came in the meantime waits."""


class ListeningClock:
    """Microseconds of listening; `now_us` is a clock that nobody sets.

    `look` and `listen` are for the loop that listens, `at` for any thread: while that loop is busy, the clock stands.
    """

    __slots__ = ("_heard_us", "_looked_us", "listening", "stalls")

    def __init__(self, now_us: int) -> None:
        self._heard_us = 0
        self._looked_us = now_us
        self.listening = False
        """Whether anything would be heard now."""
        self.stalls = 0

    def at(self, now_us: int) -> int:
        """How long was listened until now."""
        passed_us = now_us - self._looked_us
        return self._heard_us + (max(0, passed_us) if self.listening and passed_us <= STALLED_US else 0)

    def look(self, now_us: int) -> int:
        """As `at`; has to be asked more often than `STALLED_US`."""
        self.stalls += now_us - self._looked_us > STALLED_US
        self._heard_us, self._looked_us = self.at(now_us), now_us
        return self._heard_us

    def listen(self, now_us: int, listening: bool) -> None:
        """From now on something is heard, or nothing."""
        self.look(now_us)
        self.listening = listening
