"""A topology's regions as processes of one command: started, watched, started again, and ended in order."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from relight.engine.embedded.home import Running, make_home, region_home, running
from relight.engine.embedded.process import open_log
from relight.engine.errors import EmbeddedServerError

POLL_S = 0.05
READY_S = 60.0
FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 5.0
"""Before a region's process is started again."""
TAIL_BYTES = 2_000
LOG = "up.log"


@dataclass(frozen=True, kw_only=True)
class Command:
    """How a region's process is started: `arguments` of `relight`, which end with its name."""

    home: Path
    region: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)

    @property
    def folder(self) -> Path:
        return region_home(self.home, self.region)


class RegionProcess:
    """`keep` runs it until told to stop; `said` is told of each end that nobody asked for."""

    def __init__(self, command: Command, said: Callable[[str], None]) -> None:
        self.command = command
        self._said = said
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self.first_ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
        self.first_ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())

    async def keep(self, *, restart: bool) -> None:
        """Until it was stopped, or ended by itself and is not to be started again.

        An end before it was ready for the first time is an error of `first_ready`.
        """
        pause_s = FIRST_PAUSE_S
        while not self._asked_to_stop():
            self._process = await self._start()
            ready = await self._ready(self._process)
            if ready is not None:
                pause_s = FIRST_PAUSE_S
                if not self.first_ready.done():
                    self.first_ready.set_result(ready)
            code = await self._process.wait()
            if self._asked_to_stop():
                return
            why = f"region {self.command.region} ended by itself ({_ending(code)}): {self._tail()}"
            if not self.first_ready.done():
                self.first_ready.set_exception(EmbeddedServerError(why))
                return
            self._said(f"{why}; it is started again" if restart else f"{why}; it stays down")
            if not restart:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    def stop(self) -> None:
        """Asks it to end in order."""
        self._stopping = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def _asked_to_stop(self) -> bool:
        return self._stopping

    async def _start(self) -> asyncio.subprocess.Process:
        make_home(self.command.folder.parent)
        make_home(self.command.folder)
        log = open_log(self.command.folder / LOG)
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "relight.engine.cli.main", *self.command.arguments),
                stdin=asyncio.subprocess.PIPE,  # it ends when this one's end closes, so with us
                stdout=log,
                stderr=log,
                env=dict(self.command.environment),
                start_new_session=True,  # Ctrl-C in the terminal is for us, who then stop all in order
            )
        finally:
            os.close(log)

    async def _ready(self, process: asyncio.subprocess.Process) -> Running | None:
        """What it announced; None when it ended before."""
        while process.returncode is None:
            up = running(self.command.folder)
            if up is not None and up.pid == process.pid:
                return up
            await asyncio.sleep(POLL_S)
        return None

    def _tail(self) -> str:
        path = self.command.folder / LOG
        lines = path.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip().splitlines()
        said = next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "no word")
        return f"{said} (log: {path})"


async def run_children(
    commands: Sequence[Command],
    *,
    restart: bool,
    ready: Callable[[Mapping[str, Running]], Awaitable[None]],
    said: Callable[[str], None],
    asked: asyncio.Event,
) -> None:
    """All of them, until `asked`, or until every one has ended and stays down.

    `ready` is called once all are. Raises `EmbeddedServerError` when one does not get there.
    """
    children = [RegionProcess(command, said) for command in commands]
    kept = [asyncio.create_task(child.keep(restart=restart)) for child in children]
    stopped = asyncio.create_task(asked.wait())
    firsts = asyncio.create_task(_all_ready(children))
    ends = asyncio.create_task(_all_ended(kept))
    try:
        await asyncio.wait([firsts, stopped], timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        if not asked.is_set():
            if not firsts.done():
                late = [child.command.region for child in children if not child.first_ready.done()]
                raise EmbeddedServerError(
                    f"{', '.join(late)} not ready after {READY_S:.0f} s: see {commands[0].folder.parent}/*/{LOG}"
                )
            await ready(firsts.result())
            await asyncio.wait([ends, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stopped, firsts, ends):
            task.cancel()
        for child in children:
            child.stop()
        await asyncio.gather(*kept, return_exceptions=True)


async def _all_ready(children: Sequence[RegionProcess]) -> dict[str, Running]:
    return {child.command.region: await child.first_ready for child in children}


async def _all_ended(kept: "Sequence[asyncio.Task[None]]") -> None:
    await asyncio.wait(kept)


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
