"""What `relight spool` does: looks at the spools of this home, drains what was left behind, retires what is settled."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from nats.aio.client import Client

from relight.engine.app.connections import CATCH_UP_S, clock, ready_servers
from relight.engine.errors import AckNotProven, Unreachable
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM, close, connect, ensure_stream
from relight.engine.options import recorder_options
from relight.engine.recorder.adoption import Adopter, drain_left
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.servers import Servers
from relight.engine.settings import Settings
from relight.engine.spool.aside import asides
from relight.engine.spool.listing import ListedSpool, State, list_spools
from relight.engine.spool.retiring import RetireRefused, known_pseq, move_away, readable, to_retire, whole_head
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.pools import PROJECTOR_ROLE
from relight.engine.tables.unresolved import unresolved
from relight.events.base import Event
from relight.events.recorder import RecorderDrained, RecorderLost

POLL_S = 0.05
STANDS_STILL_S = 20.0
"""Draining that comes no further for so long is given up: what is left is listed."""


@dataclass(kw_only=True)
class Unresolved:
    """By publisher: numbers that are nowhere, where a spool ends with nothing after it, and where nobody can know."""

    lost: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    drained: dict[str, tuple[int, str]] = field(default_factory=dict)
    doubts: dict[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class Retired:
    """Where the files lie now, which numbers were recorded as lost, and after which whose tail is in doubt."""

    files: list[str]
    lost: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    tail_in_doubt_after: dict[str, int] = field(default_factory=dict)


def spools_here(settings: Settings) -> list[ListedSpool]:
    """Needs no server."""
    return list_spools(_folder(settings))


async def drain_spools(settings: Settings, *, advanced: Callable[[int], None]) -> list[ListedSpool]:
    """Drains what no live process holds, and gives what of it is left. Raises `Unreachable`."""
    async with _clients(settings) as (_, client):
        await _drain(client, _folder(settings), advanced)
    return [spool for spool in spools_here(settings) if _is_left(spool)]


async def retire_spools(
    settings: Settings, wanted: str, *, reason: str, decided_by: str, advanced: Callable[[int], None]
) -> Retired:
    """Drains them, records as lost what is nowhere, and moves the files. Raises `RetireRefused`, `Unreachable`."""
    folder = _folder(settings)
    to_retire(folder, wanted)
    before = set(asides(folder))
    async with _clients(settings) as (servers, client):
        await _drain(client, folder, advanced)
        if damaged := [path.name for path in asides(folder) if path not in before]:
            raise RetireRefused(
                f"damage was found, and put aside: look at {', '.join(damaged)} in `relight spool list`, and retire"
                " that"
            )
        spools = to_retire(folder, wanted)
        if waiting := [spool.file for spool in spools if spool.events or spool.bytes]:
            raise RetireRefused(
                f"{', '.join(waiting)} still holds what the stream has not taken: see `relight status` for why"
            )
        session = await connect_session(servers.database_url, role=PROJECTOR_ROLE)
        try:
            await _all_projected(client, session)
            found = await _unresolved(session, folder, spools)
        finally:
            await session.close(timeout=2)
        facts = [*_losses(found, reason=reason, decided_by=decided_by), *_ends(found)]
        if facts:
            await _record(servers, settings, facts)
        moved = move_away(folder, spools)
    return Retired(files=[str(path) for path in moved], lost=found.lost, tail_in_doubt_after=found.doubts)


def _folder(settings: Settings) -> Path:
    return settings.home / "spool"


def _is_left(spool: ListedSpool) -> bool:
    if spool.state is State.LIVE:
        return False
    return bool(spool.events or spool.bytes or spool.unreadable_events)


@asynccontextmanager
async def _clients(settings: Settings) -> AsyncIterator[tuple[Servers, Client]]:
    async with ready_servers(settings) as (servers, _):
        client = await connect(servers.nats_url, name="relight spool")
        try:
            await ensure_stream(client.jetstream(timeout=REQUEST_TIMEOUT_S))
            yield servers, client
        finally:
            await close(client)


async def _drain(client: Client, folder: Path, advanced: Callable[[int], None]) -> None:
    """Until nothing is left, or nothing goes on."""
    loop = asyncio.get_running_loop()
    moved_at = loop.time()

    def moved(events: int) -> None:
        nonlocal moved_at
        moved_at = loop.time()
        advanced(events)

    draining = asyncio.create_task(drain_left(Adopter(client, clock()), folder, advanced=moved))
    try:
        while not draining.done() and loop.time() - moved_at < STANDS_STILL_S:
            await asyncio.wait([draining], timeout=POLL_S)
        if draining.done():
            draining.result()
    finally:
        draining.cancel()
        await asyncio.wait([draining])


async def _all_projected(client: Client, session: Session) -> None:
    last_seq = (await client.jetstream(timeout=REQUEST_TIMEOUT_S).stream_info(STREAM)).state.last_seq
    deadline = asyncio.get_running_loop().time() + CATCH_UP_S
    while (await session.fetchval("SELECT max(seq) FROM projection_positions") or 0) < last_seq:
        if asyncio.get_running_loop().time() > deadline:
            raise Unreachable(
                f"the tables are behind the stream for {CATCH_UP_S:g} s: does a projector run? Look at `relight status`"
            )
        await asyncio.sleep(POLL_S)


async def _unresolved(session: Session, folder: Path, spools: list[ListedSpool]) -> Unresolved:
    left = Unresolved()
    for publisher in sorted({spool.publisher for spool in spools if spool.publisher is not None}):
        found = await unresolved(session, publisher, known_pseq(folder, spools, publisher))
        if held := readable(folder, publisher, found.missing):
            files = ", ".join(f"{file} ({len(numbers)} events)" for file, numbers in held.items())
            raise RetireRefused(
                f"events of {publisher} that are missing in the tables can be read in {files}: leave them there until"
                " they are healed; see `relight verify`"
            )
        others = {spool.file for spool in list_spools(folder) if spool.publisher == publisher}
        if others - {spool.file for spool in spools}:
            continue  # somebody writes on, or has to be retired himself
        if found.missing:
            left.lost[publisher] = list(found.missing)
        if found.closed:
            continue
        head = whole_head(folder, spools, publisher)
        if head is not None and not found.missing and head[0] == found.highest_pseq:
            left.drained[publisher] = head
        else:
            left.doubts[publisher] = max([found.highest_pseq, *(last for _, last in found.missing)])
    return left


def _losses(found: Unresolved, *, reason: str, decided_by: str) -> Iterator[Event]:
    for publisher, runs in found.lost.items():
        for first, last in runs:
            yield RecorderLost(
                publisher=publisher, first_pseq=first, events=last - first + 1, decided_by=decided_by, reason=reason
            )


def _ends(found: Unresolved) -> Iterator[Event]:
    for publisher, (pseq, sha256) in found.drained.items():
        yield RecorderDrained(publisher=publisher, last_pseq=pseq, last_sha256=sha256)


async def _record(servers: Servers, settings: Settings, facts: Sequence[Event]) -> None:
    async with Recorder(recorder_options(servers, settings)) as recorder:
        for receipt in [recorder.record(fact) for fact in facts]:
            with suppress(AckNotProven):  # acknowledged all the same
                await receipt.reached(Ack.REPLICATED)
