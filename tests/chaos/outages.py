"""A scene with one steady publisher, a projector that answers /health, and a look at memory, disk and health."""

import asyncio
import shutil
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import kept
import orjson
import psutil
from forked import CONTEXT, forked
from killing import NotAtRest, keep_logs, killed
from ledger import Told
from mounts import small_disk
from projectors import project
from proxy import Proxy, proxied
from publishers import REGION, TENANT
from reporting import Report, Step, ms
from stack import connected, on_stream
from steady import EXPOSED, FAILURE_BYTES, RECORDED, REFUSED, SteadyOrders, record_steadily

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.ports import free_port
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.log.topology import STREAM, connect
from relight.engine.recorder.options import RecorderOptions
from relight.engine.tables.migrate import migrate

SAMPLE_EVERY_S = 0.5
DRAINED_S = 120.0
SAID_WITHIN_S = 20.0
BLOCKED_MS = 1.0
"""What callers may wait for record() at most: p99."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen from outside at one time; `health_*` as /health says it, None where it does not."""

    at: float
    rss_bytes: int
    disk_bytes: int
    exposed_events: int
    health_events: int | None
    health_age_s: float | None


@dataclass(kw_only=True)
class Outage:
    """All of it, for one fault; `samples` grow while it runs."""

    name: str
    folder: Path
    nats: EmbeddedNats
    postgres: EmbeddedPostgres
    proxy: Proxy | None
    publisher: BaseProcess
    pace: Any
    shared: Any
    results: Any
    said_failure: Any
    health_url: str
    samples: list[Sample] = field(default_factory=list)
    calls: list[tuple[float, float]] = field(default_factory=list)
    """When each call of record() began, and its microseconds; after `end`."""

    @property
    def recorded(self) -> int:
        return round(self.shared[RECORDED])

    @property
    def exposed(self) -> int:
        return round(self.shared[EXPOSED])

    @property
    def refused(self) -> int:
        return round(self.shared[REFUSED])

    @property
    def failure(self) -> str:
        """What the recorder says that it waits for; empty when for nothing."""
        return bytes(self.said_failure.value).decode()

    async def watch(self) -> None:
        process = psutil.Process(self.publisher.pid)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
            while True:
                events, age_s = await _health(http, self.health_url)
                with suppress(psutil.NoSuchProcess):
                    rss = process.memory_info().rss
                    self.samples.append(
                        Sample(time.monotonic(), rss, disk_bytes(self.folder / "spool"), self.exposed, events, age_s)
                    )
                await asyncio.sleep(SAMPLE_EVERY_S)

    async def reached(self, condition: Any, what: str, *, within_s: float = DRAINED_S) -> float:
        """Seconds until the condition is true. Raises `NotAtRest`."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > within_s:
                raise NotAtRest(f"{self.name}: not within {within_s:g} s: {what}; {self.exposed} events are exposed")
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def end(self) -> None:
        """Nothing is recorded any more, all is drained, the publisher closes, and tables come to the stream's end."""
        self.pace.value = 0.0
        await self.reached(lambda: not self.exposed, "the spool is drained")
        self.publisher.terminate()
        if not await asyncio.to_thread(self.results.poll, DRAINED_S):
            raise NotAtRest(f"{self.name}: the publisher did not end within {DRAINED_S:g} s")
        began, took = array("d"), array("d")
        began.frombytes(await asyncio.to_thread(self.results.recv_bytes))
        took.frombytes(await asyncio.to_thread(self.results.recv_bytes))
        self.calls = list(zip(began, took, strict=True))
        await asyncio.to_thread(self.publisher.join, 20)
        client = await connect(self.nats.url, name="relight chaos")
        connection = await asyncpg.connect(self.postgres.url)
        try:
            last = (await client.jetstream(timeout=5).stream_info(STREAM)).state.last_seq
            deadline = time.monotonic() + DRAINED_S
            while (await connection.fetchval("SELECT max(seq) FROM projection_positions") or 0) < last:
                if time.monotonic() > deadline:
                    raise NotAtRest(f"{self.name}: the tables did not come to {last} within {DRAINED_S:g} s")
                await asyncio.sleep(0.05)
        finally:
            await connection.close()
            await client.close()

    def costs(self, since: float, until: float) -> list[float]:
        """Of record() in milliseconds, of the calls begun in that time, in ascending order."""
        return sorted(us / 1e3 for at, us in self.calls if since <= at < until)

    async def judged(self) -> tuple[Told, kept.Kept]:
        told = Told.read(self.folder / "ledgers")
        return told, await kept.look(told, nats_url=self.nats.url, database_url=self.postgres.url)

    def said(self) -> list[dict[str, Any]]:
        """The samples, for machines."""
        return [asdict(sample) for sample in self.samples]


@asynccontextmanager
async def outage(
    name: str,
    *,
    events_per_s: float,
    step: Step,
    through_proxy: bool = False,
    logs: str | None,
    disks: Mapping[str, int] | None = None,
    **options: Any,
) -> AsyncIterator[Outage]:
    """Under way when it begins. `disks`: MiB of those that are mounted in its folder; `options`: of the recorder."""
    folder = Path(tempfile.mkdtemp(prefix="relight-chaos-", dir="/tmp"))
    folder.chmod(0o755)
    step(f"{name}: starting servers and a publisher of {events_per_s:,.0f} events/s")
    try:
        async with AsyncExitStack() as stack:
            for place, megabytes in (disks or {}).items():
                stack.enter_context(small_disk(folder / place, megabytes))
            nats = await stack.enter_async_context(EmbeddedNats(folder / "servers"))
            postgres = await stack.enter_async_context(EmbeddedPostgres(folder / "servers"))
            connection = await asyncpg.connect(postgres.url)
            await migrate(connection)
            await connection.close()
            proxy = await stack.enter_async_context(proxied(nats.url)) if through_proxy else None
            port = free_port()
            projector = forked(
                project, nats.url, nats.monitor_url, postgres.url, folder, port, log=folder / "projector.log"
            )
            stack.push_async_callback(killed, projector)
            (folder / "ledgers").mkdir()
            ours, theirs = CONTEXT.Pipe(duplex=False)
            given = RecorderOptions(
                nats_url=proxy.url if proxy else nats.url,
                nats_monitor_urls=(nats.monitor_url,),
                region=REGION,
                tenant=TENANT,
                spools=folder / "spool",
                **options,
            )
            pace, shared = CONTEXT.RawValue("d", events_per_s), CONTEXT.RawArray("d", [0.0] * 3)
            failure = CONTEXT.RawArray("c", FAILURE_BYTES)
            orders = SteadyOrders(
                options=given,
                ledger=folder / "ledgers" / "1.ledger",
                pace=pace,
                shared=shared,
                failure=failure,
                results=theirs,
            )
            publisher = forked(record_steadily, orders, log=folder / "publisher.log")
            theirs.close()
            stack.push_async_callback(killed, publisher)
            here = Outage(
                name=name,
                folder=folder,
                nats=nats,
                postgres=postgres,
                proxy=proxy,
                publisher=publisher,
                pace=pace,
                shared=shared,
                results=ours,
                said_failure=failure,
                health_url=f"http://127.0.0.1:{port}/health",
            )
            watching = asyncio.create_task(here.watch())
            stack.callback(watching.cancel)
            await here.reached(
                lambda: here.recorded > events_per_s and any(s.health_events is not None for s in here.samples),
                "a load, and an answer of /health",
            )
            yield here
    finally:
        if logs is not None:
            await asyncio.to_thread(keep_logs, folder, Path(logs) / name)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def gaps(nats: EmbeddedNats, refused: int) -> int:
    """Refused events, as the stream holds it for ever; what was said last may be on its way for a while."""
    deadline = time.monotonic() + SAID_WITHIN_S
    while True:
        async with connected(nats) as client:
            bodies = [orjson.loads(message.body) for message in await on_stream(client)]
        said = sum(body["data"]["refused_events"] for body in bodies if body["type"] == "recorder.gap")
        if said == refused or time.monotonic() > deadline:
            return said
        await asyncio.sleep(0.2)


async def _health(http: aiohttp.ClientSession, url: str) -> tuple[int | None, float | None]:
    try:
        async with http.get(url) as answer:
            checks = (await answer.json(content_type=None))["checks"]
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError):
        return None, None

    def observed(name: str) -> Any:
        return checks[name][0].get("observedValue") if name in checks else None

    return observed("spools:exposedEvents"), observed("spools:exposedAge")


def disk_bytes(spools: Path) -> int:
    """Of all spools' files, the write-ahead logs among them."""
    size = 0
    for path in spools.glob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def tell_costs(report: Report, phase: str, name: str, costs: list[float], *, promised: bool = True) -> None:
    """What callers waited; the longest is told, and decided by the machine."""
    if not costs:
        report.promise(phase, f"record() {name}", "no call", kept=False, asked=f"p99 <= {BLOCKED_MS:g} ms")
        return
    p50, p99, p999 = (costs[min(len(costs) - 1, int(len(costs) * share))] for share in (0.5, 0.99, 0.999))
    over = sum(cost > BLOCKED_MS for cost in costs)
    what = f"record() {name}: p50, p99, p99.9, max; calls, of them over {BLOCKED_MS:g} ms"
    figure = f"{p50 * 1e3:,.0f} us, {p99 * 1e3:,.0f} us, {ms(p999)}, {ms(costs[-1])}; {len(costs):,}, {over:,}"
    if promised:
        report.promise(phase, what, figure, asked=f"p99 <= {BLOCKED_MS:g} ms", kept=p99 <= BLOCKED_MS)
    else:
        report.figure(phase, what, figure)


def tell_kept(report: Report, phase: str, name: str, found: kept.Kept, *, also_refused: bool = False) -> None:
    """All that is compared afterwards, in one line, and a line for each promise that was broken."""
    compared = [promise for promise in kept.PROMISES if found.counts[promise] or found.broken[promise]]
    broken = [
        promise for promise in compared if found.broken[promise] and not (promise == kept.REFUSED and also_refused)
    ]
    report.promise(
        phase,
        f"{name}: told SPOOLED, and in order on the stream and in the tables exactly once; all that is compared",
        f"{found.counts[kept.SPOOLED]:,}; {len(compared) - len(broken)} of {len(compared)}",
        asked="all",
        kept=found.counts[kept.SPOOLED] > 0 and not broken,
    )
    for promise in broken:
        figure = f"{found.counts[promise]:,}, {len(found.broken[promise]):,} not so"
        report.promise(phase, f"{name}: {promise}", figure, asked="all", kept=False, detail=found.examples(promise))
