"""What a process has registered to work on, and the worker that does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from relight.engine.errors import TaskRefused
from relight.engine.policies.reassignment import BACKOFF_S
from relight.engine.recorder.recorder import Recorder
from relight.engine.tasks.jobs import Handler, Job
from relight.engine.tasks.serving import dispatching
from relight.engine.tasks.worker import DRAIN_S, Worker

HandlerT = TypeVar("HandlerT", bound=Handler)


class Working:
    """`dispatches`: there is no service that gives out tasks, so this process does while it works."""

    def __init__(self, recorder: Recorder, *, dispatches: bool = False) -> None:
        self._recorder = recorder
        self._dispatches = dispatches
        self._jobs: dict[str, Job] = {}

    def register(
        self,
        queue: str,
        *,
        concurrency: int = 1,
        retries: int | None = None,
        backoff_s: float = BACKOFF_S,
        tenant: str | None = None,
        agent: str | None = None,
    ) -> Callable[[HandlerT], HandlerT]:
        """A decorator. Raises `TaskRefused` where the queue has a function already, or a figure makes no sense."""
        if queue in self._jobs:
            raise TaskRefused(f"queue {queue} has a worker in this process already: raise its concurrency instead")
        if concurrency < 1 or backoff_s <= 0 or (retries is not None and retries < 0):
            raise TaskRefused(
                f"worker of queue {queue}: concurrency {concurrency} must be 1 or more, retries {retries} 0 or more,"
                f" backoff_s {backoff_s} above 0"
            )

        def registered(handler: HandlerT) -> HandlerT:
            self._jobs[queue] = Job(
                queue=queue,
                handler=handler,
                concurrency=concurrency,
                retries=retries,
                backoff_s=backoff_s,
                tenant=tenant,
                agent=agent,
            )
            return handler

        return registered

    @asynccontextmanager
    async def working(self, *, drain_s: float = DRAIN_S) -> AsyncIterator[Worker]:
        """Works in this loop until the `with` ends. Raises `TaskRefused` where nothing is registered."""
        if not self._jobs:
            raise TaskRefused("there is nothing to work on: decorate a function with @r.worker(queue) first")
        async with AsyncExitStack() as stack:
            if self._dispatches:
                await stack.enter_async_context(dispatching(self._recorder))
            worker = Worker(self._recorder, tuple(self._jobs.values()), drain_s=drain_s)
            yield await stack.enter_async_context(worker.working())

    async def work(self, *, drain_s: float = DRAIN_S) -> None:
        """Until it is cancelled."""
        async with self.working(drain_s=drain_s):
            await asyncio.Event().wait()
