"""Lets other threads run while the writer makes events of many facts.

The interpreter lets a thread that computes go on for 5 ms before it hands over: a loop that wakes up in the meantime is
that late, and again each time that it waits for something.
"""

import time

LOT_S = 0.000_7
BREATH_S = 0.000_05
"""Long enough for a thread that waits for the interpreter to get it: with 0 the writer would have it back before."""
BEHIND_EVENTS = 2_000
"""With more waiting to be made, there is no breath."""


class Breath:
    """Of one thread."""

    __slots__ = ("_next_s",)

    def __init__(self) -> None:
        self._next_s = 0.0

    def take(self, waiting_events: int) -> None:
        """Between two facts: sleeps where a lot is over."""
        if waiting_events > BEHIND_EVENTS or time.monotonic() < self._next_s:
            return
        time.sleep(BREATH_S)
        self._next_s = time.monotonic() + LOT_S
