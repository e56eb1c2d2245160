"""What `relight erase` finds and erases."""

import asyncio
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict

from relight.engine import scope
from relight.engine.app.connections import ready_servers
from relight.engine.archive.store import open_store
from relight.engine.erasure.demand import Demand
from relight.engine.erasure.erasing import Advanced, Erased, Erasing, Found, Places
from relight.engine.errors import AckTimeout
from relight.engine.log.topology import Headers, close, connect
from relight.engine.options import recorder_options
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.recorder.recorder import Recorder
from relight.engine.settings import Settings
from relight.events.envelope import PLATFORM
from relight.events.recorder import RecorderErased


class Erasure(BaseModel):
    """What was found, and what was erased of it; nothing yet where `erased` is None.

    `projected`: the record is in the tables, too; otherwise it waits on the stream or in the spool for a projector.
    """

    model_config = ConfigDict(frozen=True)

    found: Found
    erased: Erased | None = None
    projected: bool = False


async def erase(
    settings: Settings,
    demand: Demand,
    *,
    archives: Sequence[str],
    dry_run: bool,
    told: Callable[[Found], None],
    advanced: Advanced,
) -> Erasure:
    """In the content store, the archive of the settings and `archives`, and the spools of this home.

    `told` is told what was found, before any of it is erased. Raises `Unreachable`, `ArchiveDamaged`,
    `ArchiveUnreachable`, `RecordRefused`.
    """
    places = dict.fromkeys([*([settings.archive] if settings.archive else []), *archives])
    stores = [open_store(place) for place in places]
    async with ready_servers(settings) as (servers, _):
        client = await connect(servers.nats_url, name="relight erase", headers=Headers.NONE)
        try:
            spools = settings.home / "spool"
            erasing = Erasing(
                demand,
                Places(client=client, archives=stores, spools=spools if spools.is_dir() else None),
                advanced,
            )
            found = await erasing.find()
            told(found)
            if dry_run or not found.contents:
                return Erasure(found=found)
            async with Recorder(recorder_options(servers, settings)) as recorder:
                receipts: list[Receipt] = []

                def record(events: Sequence[RecorderErased]) -> None:
                    with scope.entered(tenant=PLATFORM):
                        receipts.extend(recorder.record(event) for event in events)

                erased = await erasing.erase(record)
                return Erasure(found=found, erased=erased, projected=await _projected(receipts))
        finally:
            await close(client)


async def _projected(receipts: Sequence[Receipt]) -> bool:
    try:
        await asyncio.gather(*(receipt.reached(Ack.PROJECTED) for receipt in receipts))
    except AckTimeout:
        return False
    return True
