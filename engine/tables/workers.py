"""Processes that fold batches and write them, each by a session of its own: for streams that take one for long."""

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import wait

from relight.engine.errors import RelightError
from relight.engine.log.reader import Message
from relight.engine.tables.connecting import Session
from relight.engine.tables.folding import DeadLetter
from relight.engine.tables.joining import Joiner, Target
from relight.engine.tables.marks import Mark, Marks
from relight.engine.tables.shadow import Sets
from relight.projections.catalog import projections

MOST = 4
"""One process reads the stream for all of them, and would not keep more busy."""
AHEAD = 2
"""Batches for each, so that none waits for the next."""

Connect = Callable[[], Awaitable[Session]]
"""Opens a session that acts as the projector; for workers it has to be picklable."""
Row = tuple[int, int, str, bytes]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is told, once: where to write, and what of it."""

    connect: Connect
    sets: Sets
    schema: str
    projections: tuple[str, ...]
    marks: tuple[Mark, ...]


class Workers:
    """Takes batches in any order; `letters` are what could not be folded so far."""

    def __init__(self, pool: ProcessPoolExecutor, most: int) -> None:
        self.letters: list[DeadLetter] = []
        self._pool = pool
        self._most = most
        self._flying: deque[asyncio.Future[list[DeadLetter]]] = deque()

    async def take(self, messages: Sequence[Message]) -> None:
        """Waits while all workers have enough to do. Raises what a batch before has come to."""
        rows = [(message.seq, message.timestamp_ns, message.subject, message.body) for message in messages]
        self._flying.append(asyncio.get_running_loop().run_in_executor(self._pool, _write, rows))
        await self._land(self._most)

    async def finished(self) -> None:
        await self._land(0)

    async def _land(self, flying: int) -> None:
        while len(self._flying) > flying:
            try:
                self.letters += await self._flying.popleft()
            except BrokenProcessPool:
                raise RelightError(
                    "a process that folded events was ended, for want of memory perhaps: nothing was swapped; try again"
                ) from None


def how_many() -> int:
    """As many workers as there are processors, up to four: the reader is busy for a third of the time that one is.

    0 where there is a single one, which would do all of it in any case.
    """
    processors = os.cpu_count() or 1
    return min(MOST, processors) if processors > 1 else 0


@asynccontextmanager
async def workers(job: Job, count: int) -> AsyncIterator[Workers]:
    """They end with the `with`, and with this process however that ends."""
    pool = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(job,)
    )
    try:
        yield Workers(pool, count * (1 + AHEAD))
    finally:
        await asyncio.to_thread(pool.shutdown, cancel_futures=True)


def _begin(job: Job) -> None:
    """In a worker: Ctrl-C is for the process that started it, and without that one it has no business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As in `relight` itself: cycles are rarely looked for among thousands of events.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    global _job
    _job = job


_job: Job


@cache
def _joiner() -> tuple[asyncio.AbstractEventLoop, Joiner]:
    loop = asyncio.new_event_loop()
    chosen = frozenset(projection for projection in projections() if projection.name in _job.projections)
    target = Target(sets=_job.sets, schema=_job.schema, projections=chosen)

    async def connect() -> Session:
        session = await _job.connect()
        await session.execute("SET synchronous_commit = off")
        return session

    return loop, Joiner(loop.run_until_complete(connect()), target, Marks(_job.marks))


def _write(rows: Iterable[Row]) -> list[DeadLetter]:
    loop, joiner = _joiner()
    messages = [Message(*row) for row in rows]
    folded = joiner.empty()
    folded.fold(messages)
    return loop.run_until_complete(joiner.write(messages, folded))
