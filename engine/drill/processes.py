"""A region of a local topology as a process with its servers: lost, paused, wiped and started again."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from relight.engine.embedded.home import Running, make_home, region_home, running
from relight.engine.embedded.process import open_log
from relight.engine.errors import EmbeddedServerError
from relight.engine.topology.children import LOG

READY_S = 60.0
POLL_S = 0.05
ENDING_S = 20.0
GONE_S = 10.0


class RegionProcess:
    """`relight up --topology … --region …`, and all it started; nobody else starts it again."""

    def __init__(self, home: Path, topology: Path, region: str) -> None:
        self.region = region
        self.folder = region_home(home, region)
        self._home = home
        self._topology = topology
        self._process: asyncio.subprocess.Process | None = None

    @property
    def up(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Returns at once: `ready` waits."""
        make_home(self.folder.parent)
        make_home(self.folder)
        log = open_log(self._home / f"{self.region}-{LOG}")  # outside: it outlives a wiped disk
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "relight.engine.cli.main", "up", "--json", "--ends-with-stdin"),
                *("--topology", str(self._topology), "--region", self.region),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(self._home),
                start_new_session=True,
            )
        finally:
            os.close(log)

    async def ready(self) -> Running:
        """What it announced. Raises `EmbeddedServerError` when it ends before, or takes too long."""
        process = self._started()
        deadline_s = time.monotonic() + READY_S
        while process.returncode is None:
            up = running(self.folder)
            if up is not None and up.pid == process.pid:
                return up
            if time.monotonic() > deadline_s:
                raise EmbeddedServerError(f"region {self.region} is not ready after {READY_S:g} s: {self._log()}")
            await asyncio.sleep(POLL_S)
        raise EmbeddedServerError(f"region {self.region} ended before it was ready: {self._log()}")

    async def kill(self) -> None:
        """SIGKILL of service, nats-server and PostgreSQL at the same moment; returns when all of them are gone."""
        process = self._started()
        pids = _tree(process.pid)
        for pid in reversed(pids):  # servers before whoever would end them in order
            _send(pid, signal.SIGKILL)
        await process.wait()
        async with asyncio.timeout(GONE_S):
            for pid in pids:
                await _gone(pid)

    async def kill_if_up(self) -> None:
        if self.up:
            await self.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nobody answers."""
        for pid in _tree(self._started().pid):
            _send(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in _tree(self._started().pid):
            _send(pid, signal.SIGCONT)

    def wipe(self) -> None:
        """All that the region kept: stream copy, tables, spools."""
        shutil.rmtree(self.folder, ignore_errors=True)

    async def stop(self) -> None:
        """In order; by force when that takes too long."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        _send(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(ENDING_S):
                await process.wait()
        except TimeoutError:
            await self.kill()

    def _started(self) -> asyncio.subprocess.Process:
        assert self._process is not None, f"region {self.region} was not started"
        return self._process

    def _log(self) -> str:
        path = self._home / f"{self.region}-{LOG}"
        lines = path.read_bytes()[-2_000:].decode(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (log: {path})"


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    return kept | {"RELIGHT_HOME": str(home)}


def _tree(root: int) -> list[int]:
    """A process and all below it, parents first."""
    listed = subprocess.run(("ps", "-A", "-o", "pid=,ppid="), capture_output=True, text=True, check=True).stdout
    below: dict[int, list[int]] = {}
    for line in listed.splitlines():
        pid, parent = (int(word) for word in line.split())
        below.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found += below.get(pid, [])
    return found


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


async def _gone(pid: int) -> None:
    while await asyncio.to_thread(_exists, pid):  # noqa: ASYNC110  # nobody tells of a process that is not ours
        await asyncio.sleep(POLL_S)


def _exists(pid: int) -> bool:
    """A zombie whose parent has not looked yet holds nothing any more."""
    shown = subprocess.run(("ps", "-o", "stat=", "-p", str(pid)), capture_output=True, text=True, check=False).stdout
    return bool(shown.strip()) and not shown.strip().startswith("Z")
