"""How long stopping may still take, and what it had to cut off."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Stopping:
    """Handed to every part that has something to finish; `drain_s` counts from `begin`.

    Parts stop one after the other. A share of the time is what a part may use up together with those before it, so that
    one client that is slow to read its answer does not cost the projector its batch.
    """

    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._began: float | None = None
        self._hurried = asyncio.Event()
        self.cut_off: list[str] = []

    @property
    def hurried(self) -> bool:
        return self._hurried.is_set()

    def begin(self) -> None:
        """The clock starts; the first call counts."""
        if self._began is None:
            self._began = asyncio.get_running_loop().time()

    def hurry(self) -> None:
        """No more waiting: whatever is not finished is cut off."""
        self._hurried.set()

    def left_s(self, share: float = 1.0) -> float:
        """Seconds; of all of it before `begin`."""
        if self.hurried:
            return 0.0
        spent_s = 0.0 if self._began is None else asyncio.get_running_loop().time() - self._began
        return max(0.0, self._drain_s * share - spent_s)

    def cuts(self, what: str) -> None:
        """Notes, in a sentence, what was not finished."""
        self.cut_off.append(what)
        log.warning("%s", what, extra={"action": "cut_off"})

    async def pause(self, seconds: float) -> None:
        """Sleeps so long unless hurried."""
        hurried = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait([hurried], timeout=seconds)
        hurried.cancel()

    async def within(self, share: float, ending: Coroutine[Any, Any, object]) -> bool:
        """Whether `ending` is over in time; else it is cancelled, and left to go on if it does not heed that.

        Raises what it raised.
        """
        task = asyncio.ensure_future(ending)
        hurried = asyncio.ensure_future(self._hurried.wait())
        try:
            await asyncio.wait([task, hurried], timeout=self.left_s(share), return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()
        if task.done():
            task.result()
            return True
        task.cancel()
        return False
