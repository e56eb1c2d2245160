"""Closes receipts of failovers by itself, once what they leave open has come or is known to be lost."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from relight.engine.errors import RelightError
from relight.engine.log.reader import TRANSIENT
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.receipts.announced import Announced
from relight.engine.regions.receipts.followed import Completed, Receipts
from relight.engine.regions.receipts.looking import SILENT_MS, Looking, opened

EVERY_S = 2.0
MAX_LOOKS = 20
"""Of so many open receipts at once, the latest, it is looked whether they can be closed."""

log = logging.getLogger(__name__)


class ReceiptCloser:
    """A part of each region's service: which of them closes a receipt is settled by compare-and-set.

    `turn` says how many others look before this region: it leaves them so many times the time between two looks.
    """

    def __init__(
        self,
        recorder: Recorder,
        receipts: Receipts,
        announced: Announced,
        *,
        is_back: Callable[[str], bool],
        turn: Callable[[], int] = lambda: 0,
        every_s: float = EVERY_S,
        silent_ms: int = SILENT_MS,
    ) -> None:
        self._recorder = recorder
        self._receipts = receipts
        self._announced = announced
        self._is_back = is_back
        self._turn = turn
        self._every_s = every_s
        self._silent_ms = silent_ms
        self._looking: dict[str, Looking] = {}
        self._failed: str | None = None

    @property
    def failure(self) -> str | None:
        """What it cannot do now; else which receipts are open."""
        waiting = self._failed or self._receipts.failure
        if waiting is not None:
            return waiting
        still = [one for one in self._receipts.open if self._looked_at(one)]
        if not still:
            return None
        latest = still[-1]
        more = f" (and {len(still) - 1} more)" if len(still) > 1 else ""
        return (
            f"the receipt of failover {latest.failover} out of {latest.source_region} is open{more}: see `relight"
            f" failover receipt {latest.failover}`; it closes when the region returns, or by `relight failover gone"
            f" {latest.source_region}`"
        )

    @property
    def open(self) -> Mapping[str, Looking]:
        return dict(self._looking)

    async def run(self) -> None:
        """For ever; what fails is tried again."""
        while True:
            try:
                await self._look()
                self._failed = None
            except (RelightError, ValidationError, *TRANSIENT) as error:
                self._failed = str(error) or type(error).__name__
            except Exception as error:  # a daemon's edge: others close them, and health says why
                log.exception("receipts cannot be closed here", extra={"action": "closing_failed"})
                self._failed = str(error) or type(error).__name__
            await asyncio.sleep(self._every_s * (1 + self._turn()))

    def _looked_at(self, one: Completed) -> bool:
        """One that was just made is no warning yet: it may have nothing to be closed for."""
        return one.failover in self._looking and bool(self._looking[one.failover].left)

    async def _look(self) -> None:
        still = self._receipts.open[-MAX_LOOKS:]
        failure: Exception | None = None
        for failover in self._looking.keys() - {one.failover for one in still}:
            del self._looking[failover]
        for one in still:
            try:
                if await (await self._at(one)).look():
                    log.info("the receipt of failover %s is closed", one.failover, extra={"action": "receipt_closed"})
            except (RelightError, ValidationError, *TRANSIENT) as error:  # the others are looked at all the same
                failure = error
        if failure is not None:
            raise failure

    async def _at(self, one: Completed) -> Looking:
        if one.failover not in self._looking:
            receipt = await opened(self._recorder, one)
            self._looking[one.failover] = Looking(
                self._recorder,
                one,
                receipt,
                announced=self._announced,
                is_back=self._is_back,
                silent_ms=self._silent_ms,
            )
        return self._looking[one.failover]
