"""Whose turn it is to rule: the first active region at once, each further one a while later, if nobody has."""

import asyncio

from relight.engine.regions.routing import RoutingTable

GRACE_S = 0.5
"""How much longer each further region leaves a ruling to those before it."""


class Turns:
    """Of one region; in one loop. What is due is compared: something else due begins a new turn."""

    def __init__(self, table: RoutingTable, region: str, *, grace_s: float = GRACE_S) -> None:
        self._table = table
        self._region = region
        self._grace_s = grace_s
        self._due: object | None = None
        self._since = 0.0

    @property
    def rank(self) -> int:
        """0: it rules at once; a region that takes no traffic comes last."""
        active = self._table.active
        return active.index(self._region) if self._region in active else len(active)

    def is_ours(self, due: object | None) -> bool:
        """Whether what is due now is to be ruled by this region; None: nothing is."""
        now = asyncio.get_running_loop().time()
        if due != self._due:
            self._due, self._since = due, now
        return due is not None and now >= self._since + self.rank * self._grace_s

    def again(self) -> None:
        """Ruled, or refused: it is not our turn for the same before another grace."""
        self._since = asyncio.get_running_loop().time() + self._grace_s

    def pause_s(self, longest_s: float) -> float:
        """Until it may be our turn."""
        if self._due is None:
            return longest_s
        left_s = self._since + self.rank * self._grace_s - asyncio.get_running_loop().time()
        return min(longest_s, max(left_s, 0.01))
