"""What `relight failover receipt|receipts|gone` do: they read the log, and no table."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from relight.engine.app.failing_over import DEFAULT_FLEET
from relight.engine.errors import RelightError
from relight.engine.options import recorder_options
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.receipts.followed import Completed, Receipts
from relight.engine.regions.receipts.looking import Looking, closing_of, opened
from relight.engine.regions.receipts.models import Closing, Receipt
from relight.engine.servers import found_servers
from relight.engine.settings import Settings
from relight.engine.topology.loading import load_topology

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A receipt, and how it was closed."""

    receipt: Receipt
    closing: Closing | None


class FleetReceipts:
    """Of one fleet, as an operator has them at hand."""

    def __init__(self, recorder: Recorder, receipts: Receipts) -> None:
        self._recorder = recorder
        self._receipts = receipts

    @property
    def open(self) -> tuple[Completed, ...]:
        return self._receipts.open

    async def show(self, failover: str) -> Shown:
        """Raises `RelightError` where there is none."""
        completed = self._receipts.all.get(failover)
        if completed is None:
            raise RelightError(
                f"failover {failover} of fleet {self._receipts.fleet} left no receipt, or is none: see"
                " `relight failover receipts`, and `relight query failover.recent`"
            )
        receipt = await self._in_loop(opened(self._recorder, completed))
        return Shown(receipt=receipt, closing=await self._in_loop(closing_of(self._recorder, completed)))

    async def gone(self, region: str, *, declared_by: str, reason: str) -> list[Closing]:
        """Closes all open receipts of failovers out of this region. Raises what the log raises."""
        closings = []
        for completed in self.open:
            if completed.source_region == region:
                receipt = await self._in_loop(opened(self._recorder, completed))
                looking = Looking(self._recorder, completed, receipt)
                closing = await self._in_loop(looking.give_up(declared_by=declared_by, reason=reason))
                if closing is not None:
                    closings.append(closing)
        return closings

    async def read(self) -> None:
        """As they stand now. Raises what the log raises."""
        await self._in_loop(self._receipts.read())

    async def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(self._recorder.in_loop(work))


@asynccontextmanager
async def opened_receipts(settings: Settings, fleet: str | None) -> AsyncIterator[FleetReceipts]:
    """As they stand now. Raises what finding servers does."""
    topology = None if settings.topology is None else load_topology(settings.topology)
    name = fleet or (topology.fleet.name if topology is not None else DEFAULT_FLEET)
    async with found_servers(settings) as servers, Recorder(recorder_options(servers, settings)) as recorder:
        receipts = FleetReceipts(recorder, Receipts(recorder, name))
        await receipts.read()
        yield receipts
