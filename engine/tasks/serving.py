"""A dispatcher for one region without a topology: it runs in its recorder's loop until the `with` ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relight.engine.policies.reassignment import LEASE_S
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heard import Heard
from relight.engine.tasks.dispatcher import Dispatcher


@asynccontextmanager
async def dispatching(recorder: Recorder, *, lease_s: float = LEASE_S) -> AsyncIterator[Dispatcher]:
    heard = Heard(recorder)
    dispatcher = Dispatcher(recorder, heard, lease_s=lease_s)
    running = [recorder.in_loop(heard.run()), recorder.in_loop(dispatcher.run())]
    try:
        yield dispatcher
    finally:
        for part in running:
            part.cancel()
