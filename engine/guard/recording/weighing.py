"""How much may wait for a disk that hangs before bodies are let go: so many events, or fewer of heavy bodies."""

from collections.abc import Mapping

MOST_EVENTS = 10_000
FEWEST_EVENTS = 100
PRESSED_BYTES = 128 << 20
"""What waiting bodies may hold of a process's memory, which is the agent's."""
EVENTS_OF_A_BODY = 2
"""A call that works has a request and an answer, and four events."""
RISES, FALLS = 4, 64
"""A heavy body counts for many light ones: agents' prompts grow with every turn."""

LONGEST_NAME = 200


class Weights:
    """Bodies are weighed as they are digested, not on a caller's time.

    While nothing is written the limit is that of the last bodies before. One thread writes; others only read.
    """

    def __init__(self) -> None:
        self._typical_bytes = PRESSED_BYTES * EVENTS_OF_A_BODY / max(1, MOST_EVENTS)
        self.pressed_events = 0
        """So many waiting events, and bodies are let go."""
        self._limit()

    def weighed(self, body_bytes: int) -> None:
        more = body_bytes - self._typical_bytes
        self._typical_bytes += more / (RISES if more > 0 else FALLS)
        self._limit()

    def _limit(self) -> None:
        bodies = int(PRESSED_BYTES / max(1.0, self._typical_bytes))
        self.pressed_events = max(FEWEST_EVENTS, min(MOST_EVENTS, bodies * EVENTS_OF_A_BODY))


def hull(body: Mapping[str, object]) -> dict[str, object]:
    """What events tell of a request besides its digest: its numbers and names, and how long its lists are."""
    return {name: _hull(value) for name, value in body.items()}


def _hull(value: object) -> object:
    match value:
        case Mapping():
            return hull(value)
        case list() | tuple():
            return [None] * len(value)
        case str() if len(value) > LONGEST_NAME:
            return None
        case _:
            return value
