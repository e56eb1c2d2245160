"""Tasks on a real server: a stage with a dispatcher, workers in this process and others, and what the stream says."""

import asyncio
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson
from nats.aio.client import Client
from stack import DEADLINE_S, connected, folder, nats_server, on_stream, options, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heard import Heard
from relight.engine.tasks.dispatcher import Dispatcher
from relight.engine.tasks.rulings import TaskLog
from relight.engine.tasks.submitting import Submitted, Submitter
from relight.engine.tasks.working import Working
from relight.events.base import Event
from relight.events.catalog import decode
from relight.events.envelope import Recorded
from relight.events.tasks import TaskRuling, TaskState

LEASE_S = 1.5
UNHELD_S = 0.7
"""Short, so that tests need not wait."""
CHILD = Path(__file__).with_name("tasking_child.py")

T = TypeVar("T")


@dataclass
class Stage:
    """A server, and a recorder beside whose loop a dispatcher runs; each test has tenants and queues of its own."""

    nats: EmbeddedNats
    client: Client
    recorder: Recorder
    spools: Path
    stack: AsyncExitStack
    dispatcher: Dispatcher | None = None
    _parts: list[Any] = field(default_factory=list)

    async def in_loop(self, coroutine: Coroutine[Any, Any, T], recorder: Recorder | None = None) -> T:
        found: T = await asyncio.wrap_future((recorder or self.recorder).in_loop(coroutine))
        return found

    @property
    def log(self) -> TaskLog:
        return TaskLog(self.recorder)

    async def dispatch(self) -> None:
        """Starts another dispatcher in place of the one that runs."""
        self.end_dispatcher()
        heard = Heard(self.recorder)
        self.dispatcher = Dispatcher(self.recorder, heard, lease_s=LEASE_S, unheld_s=UNHELD_S)
        self._parts = [self.recorder.in_loop(heard.run()), self.recorder.in_loop(self.dispatcher.run())]
        await until(lambda: self.dispatcher and self.dispatcher.failure is None, "the dispatcher has read the tasks")

    def end_dispatcher(self) -> None:
        for part in self._parts:
            part.cancel()
        self._parts = []

    async def submit(self, queue: str, payload: Any = None, *, tenant: str, **more: Any) -> Submitted:
        return await self.in_loop(Submitter(self.recorder).submit(queue, payload, tenant=tenant, **more))

    async def submit_many(self, queue: str, tasks: int, *, tenant: str, **more: Any) -> None:
        """Named 0, 1, 2 …, fifty at a time."""
        submitter = Submitter(self.recorder)

        async def all_of_them() -> None:
            for first in range(0, tasks, 50):
                names = range(first, min(tasks, first + 50))
                await asyncio.gather(*(submitter.submit(queue, tenant=tenant, task=str(n), **more) for n in names))

        await self.in_loop(all_of_them())

    async def rulings(self, tenant: str) -> dict[str, list[Recorded[TaskRuling]]]:
        """What was ruled on each of the tenant's tasks, in order; that their revisions are whole is checked."""
        found: defaultdict[str, list[Any]] = defaultdict(list)
        for event in await self.events(tenant):
            if isinstance(event.data, TaskRuling):
                found[event.data.task].append(event)
        for task, events in found.items():
            assert [event.rev for event in events] == list(range(1, len(events) + 1)), task
        return found

    async def events(self, tenant: str) -> list[Recorded[Event]]:
        await until(lambda: self.recorder.health().exposed_events == 0, "what this process recorded is on the stream")
        events = [decode(message.body) for message in await on_stream(self.client)]
        return [event for event in events if event.tenant == tenant]

    async def state(self, tenant: str, task: str) -> TaskState:
        tail = await self.in_loop(self.log.tail(tenant, task))
        assert tail.event is not None
        assert isinstance(tail.event.data, TaskRuling)
        assert tail.event.data.state is not None
        return tail.event.data.state

    async def all_ended(self, tenant: str, tasks: int, *, within_s: float = DEADLINE_S) -> None:
        """Waits until so many of the tenant's tasks are completed or given up; asked of the stream itself."""
        js = self.client.jetstream(timeout=10)

        async def ended() -> bool:
            if not self.client.is_connected or self.dispatcher is None or self.dispatcher.failure is not None:
                return False
            known = [key for key in self.dispatcher.known() if key[0] == tenant]
            if known:
                return False
            info = await js.stream_info("EV", subjects_filter=f"ctl.reassignment.{tenant}.>")
            return len(info.state.subjects or {}) == tasks

        await until(ended, f"all {tasks} tasks of {tenant} ended", within_s=within_s)

    @asynccontextmanager
    async def another(self, region: str = "eu", **more: Any) -> AsyncIterator[tuple[Recorder, Working]]:
        """A recorder of another process's, as far as tasks can tell."""
        async with Recorder(options(self.nats, self.spools / os.urandom(4).hex(), region=region, **more)) as recorder:
            yield recorder, Working(recorder)


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """A busy disk would be measured: the server leaves its own to the operating system."""
    async with nats_server(sync_always=False) as nats, connected(nats) as client, AsyncExitStack() as stack:
        spools = stack.enter_context(folder())
        recorder = await stack.enter_async_context(Recorder(options(nats, spools / "own")))
        stage = Stage(nats, client, recorder, spools, stack)
        await stage.dispatch()
        yield stage
        stage.end_dispatcher()


class Children:
    """Worker processes, forked by one that has imported everything; what they print, and ways to end them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[Mapping[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def forked(cls, stage: Stage, queue: str, workers: int, **how: Any) -> AsyncIterator[Self]:
        given = {"nats_url": stage.nats.url, "queue": queue, "workers": workers, "folder": str(stage.spools), **how}
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), orjson.dumps(given).decode(), stdout=asyncio.subprocess.PIPE
        )
        children = cls(process)
        try:
            yield children
        finally:
            for pid in children.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            children._reading.cancel()

    def pids(self) -> list[int]:
        return [said["pid"] for said in self.said if said["what"] == "works"]

    def of(self, what: str, **which: Any) -> list[Mapping[str, Any]]:
        return [said for said in self.said if said["what"] == what and which.items() <= said.items()]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.said.append(orjson.loads(line))
