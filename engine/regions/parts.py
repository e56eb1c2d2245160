"""What one region's service runs beside the rest: in the recorder's loop, begun anew whenever that loop is."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from relight.engine.recorder.recorder import Recorder

RETRY_S = 0.5
ENDING_S = 2.0

log = logging.getLogger(__name__)


class Part(Protocol):
    """`run` goes on for ever, in the recorder's loop; `failure` says what it waits for now."""

    @property
    def failure(self) -> str | None: ...

    async def run(self) -> None: ...


class Parts:
    """By name; others may be added before they run."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._parts: dict[str, Part] = {}
        self._ended: dict[str, str] = {}

    def add(self, **parts: Part) -> None:
        self._parts |= parts

    def failures(self) -> Mapping[str, str | None]:
        """What each waits for; None where all is well."""
        return {name: self._ended.get(name) or part.failure for name, part in self._parts.items()}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """All of them, until the `with` ends."""
        tasks = [asyncio.create_task(self._keep(name, part), name=name) for name, part in self._parts.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=ENDING_S)

    async def _keep(self, name: str, part: Part) -> None:
        while True:
            try:
                await asyncio.wrap_future(self._recorder.in_loop(part.run()))
                self._ended[name] = "it ended by itself"
            except Exception as error:  # the daemon's edge: the other parts go on, and health says so
                self._ended[name] = str(error) or type(error).__name__
                log.exception("part %s ended, it is begun anew", name, extra={"action": "part_failed"})
            await asyncio.sleep(RETRY_S)
            self._ended.pop(name, None)
