"""A running scene whose processes are killed one after the other, and what is looked at while they are."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path

import asyncpg
import psutil
from forked import CONTEXT, forked
from projectors import adopt, project
from publishers import EXPOSED, WORKING, Orders, publish
from reporting import Step

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.health.spools import exposed_spools
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.topology import STREAM, connect
from relight.engine.tables.migrate import migrate
from relight.engine.tables.projector import DATABASE_AWAY

LOOK_EVERY_S = 0.03
LOOKED_S = 5.0
REST_S = 90.0
GRACE_S = 20.0


class NotAtRest(Exception):
    """What was recorded did not come to the tables in time; says what was still on its way."""


@dataclass
class Publishing:
    """One publisher of several: the process that is at work under its number now, and what both sides see."""

    number: int
    shared: object
    process: BaseProcess | None = None


@dataclass(kw_only=True)
class KillScene:
    """Its folders, servers and processes; `seq` and `projected_seq` are as last looked at."""

    name: str
    folder: Path
    nats: EmbeddedNats
    postgres: EmbeddedPostgres
    pace: object
    seq: int = 0
    projected_seq: int = 0
    looked_at: float = 0.0
    publishers: list[Publishing] = field(default_factory=list)
    projectors: list[BaseProcess] = field(default_factory=list)
    went_back: list[str] = field(default_factory=list)
    """What a server held before it was killed and not after."""
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    @property
    def spools(self) -> Path:
        return self.folder / "spool"

    @property
    def ledgers(self) -> Path:
        return self.folder / "ledgers"

    def start_publisher(self, publishing: Publishing) -> None:
        """Whoever had the number before; a spool that is free goes on with its numbers and chain."""
        n = next(self.numbers)
        orders = Orders(
            number=publishing.number,
            seed=f"{self.name}-{n}",
            nats_url=self.nats.url,
            monitor_url=self.nats.monitor_url,
            spools=self.spools,
            ledger=self.ledgers / f"{n:05}.ledger",
            shared=publishing.shared,
            pace=self.pace,
        )
        publishing.process = forked(publish, orders, log=self.folder / "publishers.log")

    def start_projector(self, place: int) -> None:
        home = self.folder / f"projector-{place}"
        arguments = (self.nats.url, self.nats.monitor_url, self.postgres.url, home)
        process = forked(project, *arguments, log=self.folder / "projectors.log")
        self.projectors[place : place + 1] = [process]

    def start_adopter(self) -> BaseProcess:
        return forked(adopt, self.nats.url, self.spools, log=self.folder / "adopters.log")

    def exposed(self) -> int:
        """Events on this disk that the stream has not acknowledged, of all spools."""
        return exposed_spools(self.spools, now_ms=0).events

    def taken(self) -> int:
        """Events that publishers hold and the stream has not acknowledged, as they last said."""
        return round(sum(publishing.shared[EXPOSED] for publishing in self.publishers))  # type: ignore[index]

    async def watch(self) -> None:
        """Looks how far stream and tables are, for ever; a server that is away is asked again."""
        client = await connect(self.nats.url, name="relight chaos")
        connection: asyncpg.Connection | None = None
        try:
            while True:
                with suppress(*TRANSIENT):
                    info = await asyncio.wait_for(client.jetstream(timeout=1).stream_info(STREAM), 1)
                    self.seq = max(self.seq, info.state.last_seq)
                try:
                    if connection is None:
                        connection = await asyncpg.connect(self.postgres.url, timeout=2)
                    seq = await connection.fetchval("SELECT max(seq) FROM projection_positions", timeout=2)
                    self.projected_seq = max(self.projected_seq, seq or 0)
                except DATABASE_AWAY:
                    if connection is not None:
                        connection.terminate()
                    connection = None
                self.looked_at = time.monotonic()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            if connection is not None:
                connection.terminate()
            await client.close()

    async def nats_held(self, seq: int) -> None:
        """After a restart: what was acknowledged up to there is there."""
        client = await connect(self.nats.url, name="relight chaos")
        try:
            found = (await client.jetstream(timeout=LOOKED_S).stream_info(STREAM)).state.last_seq
        finally:
            await client.close()
        if found < seq:
            self.went_back.append(f"the stream ended at {found} after NATS was killed at {seq} or later")

    async def postgres_held(self, seq: int) -> None:
        connection = await asyncpg.connect(self.postgres.url, timeout=LOOKED_S)
        try:
            found = await connection.fetchval("SELECT max(seq) FROM projection_positions") or 0
        finally:
            await connection.close()
        if found < seq:
            self.went_back.append(f"the position was {found} after PostgreSQL was killed at {seq} or later")

    def a_backend(self, draw: float) -> int | None:
        """One of the server's sessions with a client, to be killed alone: the server then recovers by itself."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.postgres.pid).children():
                with suppress(psutil.NoSuchProcess, IndexError):
                    if "127.0.0.1(" in process.cmdline()[0]:
                        found.append(process.pid)
        return sorted(found)[int(draw * len(found))] if found else None

    async def kill_all_of_postgres(self) -> None:
        """Every process at once, as a machine that stops; `kill` alone lets sessions end by themselves."""
        server = psutil.Process(self.postgres.pid)
        for process in [server, *server.children()]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        await self.postgres.kill()

    async def rest(self) -> None:
        """Nobody records, and all that was recorded is in the tables. Raises `NotAtRest`."""
        self.pace.value = 0.0  # type: ignore[attr-defined]
        deadline, quiet = time.monotonic() + REST_S, 0
        while quiet < 3:
            await asyncio.sleep(0.1)
            looked_at = self.looked_at
            while self.looked_at == looked_at:
                await asyncio.sleep(LOOK_EVERY_S)
            working = round(sum(publishing.shared[WORKING] for publishing in self.publishers))  # type: ignore[index]
            exposed = await asyncio.to_thread(exposed_spools, self.spools, now_ms=0)
            at_rest = not (working or self.taken() or exposed.events or exposed.bytes)
            quiet = quiet + 1 if at_rest and self.projected_seq == self.seq else 0
            if time.monotonic() > deadline:
                raise NotAtRest(
                    f"{self.name}: after {REST_S:g} s {working} bursts are in hand, {exposed.events} events and"
                    f" {exposed.bytes} bytes in spools, and the tables are at {self.projected_seq} of {self.seq}"
                )

    def go_on(self) -> None:
        self.pace.value = 1.0  # type: ignore[attr-defined]

    async def end_publishers(self) -> None:
        """In order: each says `recorder.closed`."""
        for publishing in self.publishers:
            assert publishing.process is not None
            publishing.process.terminate()
        for publishing in self.publishers:
            assert publishing.process is not None
            await asyncio.to_thread(publishing.process.join, GRACE_S)
            publishing.shared[EXPOSED] = publishing.shared[WORKING] = 0  # type: ignore[index]


async def killed(process: BaseProcess) -> None:
    """SIGKILL, and gone."""
    process.kill()
    await asyncio.to_thread(process.join, LOOKED_S)


@asynccontextmanager
async def kill_scene(
    name: str, *, publishers: int, projectors: int, logs: str | None, step: Step
) -> AsyncIterator[KillScene]:
    """Both servers fsync, as in production; in a folder that goes at the end."""
    folder = Path(tempfile.mkdtemp(prefix="relight-chaos-", dir="/tmp"))
    folder.chmod(0o755)  # as root, PostgreSQL runs as nobody
    try:
        step(f"{name}: starting servers, {publishers} publishers and {projectors} projectors")
        async with EmbeddedNats(folder / "servers") as nats, EmbeddedPostgres(folder / "servers") as postgres:
            connection = await asyncpg.connect(postgres.url)
            await migrate(connection)
            assert await connection.fetchval("SHOW fsync") == "on", "a killed PostgreSQL proves nothing otherwise"
            await connection.close()
            scene = KillScene(name=name, folder=folder, nats=nats, postgres=postgres, pace=CONTEXT.RawValue("d", 1.0))
            scene.ledgers.mkdir()
            scene.publishers = [Publishing(number, CONTEXT.RawArray("d", [0.0, 0.0])) for number in range(publishers)]
            try:
                for publishing in scene.publishers:
                    scene.start_publisher(publishing)
                for place in range(projectors):
                    scene.start_projector(place)
                await _under_way(scene)
                watching = asyncio.create_task(scene.watch())
                try:
                    yield scene
                finally:
                    watching.cancel()
                    await asyncio.wait([watching])
            finally:
                for process in [*scene.projectors, *(publishing.process for publishing in scene.publishers)]:
                    if process is not None:
                        await killed(process)
    finally:
        if logs is not None:
            await asyncio.to_thread(keep_logs, folder, Path(logs) / name)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _under_way(scene: KillScene) -> None:
    """Events of the scene stand on the stream and in the tables."""
    deadline = time.monotonic() + REST_S
    watching = asyncio.create_task(scene.watch())
    try:
        while not scene.projected_seq > 0:
            if watching.done():  # the stream is not there yet
                watching.result()
            if time.monotonic() > deadline:
                raise NotAtRest(f"{scene.name}: nothing came to the tables within {REST_S:g} s")
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        watching.cancel()
        await asyncio.wait([watching])


def keep_logs(folder: Path, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for log in [*folder.glob("*.log"), *folder.glob("servers/*/log")]:
        shutil.copy(log, to / "-".join(log.relative_to(folder).parts))
