"""Says to what runs for long on a connection that the server is about to stop."""

from collections.abc import Callable

KEY = "relight.draining"
"""Key of the ASGI scope."""


class Draining:
    """Of one connection."""

    def __init__(self) -> None:
        self.began = False
        self._then: list[Callable[[], None]] = []

    def then(self, call: Callable[[], None]) -> None:
        """Calls it once draining begins; at once where it has begun."""
        if self.began:
            call()
        else:
            self._then.append(call)

    def begin(self) -> None:
        self.began = True
        calls, self._then = self._then, []
        for call in calls:
            call()
