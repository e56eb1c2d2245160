"""How a topology is: every copy of the log, how far each region's tables are, and whether it is on disks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError
from pydantic import BaseModel, ConfigDict

from relight.engine.errors import RelightError
from relight.engine.log.topology import STREAM, close, connect
from relight.engine.proving.models import Attestation
from relight.engine.tables.connecting import Session
from relight.engine.topology.servers_seen import SeenServer
from relight.events.subjects import CONTROLS, OBSERVATIONS, token

ASK_S = 2.0
GONE = (NatsError, TimeoutError, OSError, RelightError)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class CopyStatus(_Frozen):
    """One server's copy of the stream. `last` has the last sequence of each origin in it (a region, or `rulings`);
    `behind` is of the furthest copy, in messages. `current` and `leads` are the leader's word; null: nobody said."""

    server: str
    region: str
    answers: bool
    sync_always: bool
    leads: bool | None
    current: bool | None
    last_seq: int | None
    behind: int | None
    last: Mapping[str, int | None]


class TablesStatus(_Frozen):
    """How far one region's tables are; null position: its database does not answer."""

    region: str
    position: int | None
    behind: int | None
    failure: str | None = None


class TopologyStatus(_Frozen):
    """`proven`: acknowledged events are on the disks of a majority; `faults` says why not."""

    kind: str
    leader: str | None
    copies: tuple[CopyStatus, ...]
    tables: tuple[TablesStatus, ...]
    proven: bool
    faults: tuple[str, ...]

    @property
    def troubles(self) -> list[str]:
        """What is not as it should be."""
        found = [f"server {copy.server} does not answer" for copy in self.copies if not copy.answers]
        found += [f"the copy of {copy.server} is not current" for copy in self.copies if copy.current is False]
        found += [f"tables of {one.region}: {one.failure}" for one in self.tables if one.failure is not None]
        return [*found, *self.faults] if self.proven or self.faults else [*found, "that it is on disks is not proven"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Whom to ask: `client` speaks for the leader, each server of `addresses` for its own copy."""

    client: Client | None
    servers: Sequence[SeenServer]
    addresses: Mapping[str, str]
    sessions: Mapping[str, Callable[[], Awaitable[Session]]]
    attest: Callable[[], Awaitable[Attestation]]


async def status_of(kind: str, origins: Sequence[str], asked: Asked) -> TopologyStatus:
    """All at once; whoever does not answer is said so. `origins` are the regions that events come from."""
    (leader, current), lasts, positions, attested = await asyncio.gather(
        _peers(asked.client),
        asyncio.gather(*(_last(asked.addresses.get(one.name), origins, one.answers) for one in asked.servers)),
        asyncio.gather(*(_position(open_session) for open_session in asked.sessions.values())),
        _attested(asked),
    )
    furthest = max((one.copy.last_seq for one in asked.servers if one.copy), default=0)
    copies = tuple(
        CopyStatus(
            server=one.name,
            region=one.region,
            answers=one.answers,
            sync_always=one.sync_always,
            leads=None if leader is None else one.name == leader,
            current=current.get(one.name),
            last_seq=one.copy.last_seq if one.copy else None,
            behind=furthest - one.copy.last_seq if one.copy else None,
            last=last,
        )
        for one, last in zip(asked.servers, lasts, strict=True)
    )
    tables = tuple(
        TablesStatus(
            region=region,
            position=found if isinstance(found, int) else None,
            behind=max(0, furthest - found) if isinstance(found, int) else None,
            failure=found if isinstance(found, str) else None,
        )
        for region, found in zip(asked.sessions, positions, strict=True)
    )
    return TopologyStatus(
        kind=kind, leader=leader, copies=copies, tables=tables, proven=attested.proven, faults=attested.faults
    )


async def _peers(client: Client | None) -> tuple[str | None, dict[str, bool]]:
    """Who leads the stream, and of each server whether its copy is current."""
    if client is None:
        return None, {}
    try:
        info = await client.jetstream(timeout=ASK_S).stream_info(STREAM)
    except (*GONE, APIError):
        return None, {}
    cluster = info.cluster
    if cluster is None or cluster.leader is None:
        return None, {}
    peers = {peer.name or "": bool(peer.current) and not peer.offline for peer in cluster.replicas or []}
    return cluster.leader, {**peers, cluster.leader: True}


async def _last(url: str | None, origins: Sequence[str], answers: bool) -> dict[str, int | None]:
    """Read of the server's own copy: a server answers direct reads itself where it has one."""
    subjects = {origin: f"{OBSERVATIONS}.{token(origin)}.>" for origin in origins} | {"rulings": f"{CONTROLS}.>"}
    nothing: dict[str, int | None] = dict.fromkeys(subjects)
    if url is None or not answers:
        return nothing
    try:
        async with asyncio.timeout(ASK_S + 1):
            client = await connect(url, name="relight topology status")
    except GONE:
        return nothing
    try:
        found = await asyncio.gather(*(_last_of(client, subject) for subject in subjects.values()))
        return dict(zip(subjects, found, strict=True))
    finally:
        await close(client)


async def _last_of(client: Client, subject: str) -> int | None:
    try:
        asked = orjson.dumps({"last_by_subj": subject})
        message = await client.request(f"$JS.API.DIRECT.GET.{STREAM}", asked, timeout=ASK_S)
    except GONE:
        return None
    seq = (message.headers or {}).get("Nats-Sequence")
    return None if seq is None else int(seq)


async def _position(open_session: Callable[[], Awaitable[Session]]) -> int | str:
    try:
        session = await open_session()
        try:
            found = await session.fetchval("SELECT seq FROM projection_positions", timeout=ASK_S)
            return int(found or 0)
        finally:
            await session.close(timeout=ASK_S)
    except Exception as error:  # an edge: whatever it is, the others are shown
        return str(error) or type(error).__name__


async def _attested(asked: Asked) -> Attestation:
    if asked.client is None:
        return Attestation(faults=("no server of the stream answers",))
    try:
        return await asked.attest()
    except GONE as error:
        return Attestation(faults=(str(error) or type(error).__name__,))
