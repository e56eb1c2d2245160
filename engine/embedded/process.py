"""One server under a supervisor, as seen by the process that needs it."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from relight.engine.errors import EmbeddedServerError

SUPERVISOR = Path(__file__).resolve().with_name("supervisor.py")
# How long a server may take to stop after its parent died, when nobody is left to say.
ORPHAN_GRACE_S = 15.0
LOG_LIMIT_BYTES = 10_000_000
TAIL_BYTES = 4_000
TAIL_LINES = 6
# A server inherits nothing else: started by root and run as nobody, its environment is readable by all of nobody's
# processes, and ours may hold API keys.
INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The user that a server runs as when root starts it."""

    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class Launch:
    """`command[0]` is an absolute path; `lock_fd` is inherited by the server and all it starts."""

    command: tuple[str, ...]
    stop_signal: signal.Signals
    log: Path
    lock_fd: int
    owner: Owner | None = None


class SupervisedProcess:
    """Ends with this process, however that ends: see `supervisor.py`."""

    def __init__(self, launch: Launch, supervisor: asyncio.subprocess.Process, log_start: int) -> None:
        self._launch = launch
        self._supervisor = supervisor
        self._log_start = log_start
        self.pid = 0
        self.stop_asked = False

    @classmethod
    async def start(cls, launch: Launch) -> Self:
        """Return once the process runs, which says nothing of its readiness."""
        log = open_log(launch.log)
        owner = f"{launch.owner.uid}:{launch.owner.gid}" if launch.owner else "-"
        settings = (str(os.getpid()), str(int(launch.stop_signal)), str(ORPHAN_GRACE_S), owner)
        try:
            supervisor = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(SUPERVISOR), *settings, *launch.command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd="/",
                env=environment(),
                pass_fds=(launch.lock_fd,),
                start_new_session=True,  # Ctrl-C in the terminal is for the parent, which then stops us in order
            )
            process = cls(launch, supervisor, os.fstat(log).st_size)
        finally:
            os.close(log)
        try:
            await process._learn_pid()
        except BaseException:
            await process.stop()
            raise
        return process

    @property
    def running(self) -> bool:
        return self._supervisor.returncode is None

    async def wait(self) -> int:
        """Return the server's exit code once it ended; 128 + n for signal n."""
        return await self._supervisor.wait()

    async def stop(self, deadline_s: float = ORPHAN_GRACE_S) -> int:
        """End the server in order, or by force when `deadline_s` is over; return its exit code."""
        if self.running:
            self.stop_asked = True
        stdin = self._supervisor.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(b"%.3f\n" % deadline_s)
            stdin.close()
        try:
            async with asyncio.timeout(deadline_s + 5):
                return await self.wait()
        except TimeoutError:
            self._supervisor.kill()  # never seen; the kernel then sends the server its stop signal
            return await self.wait()

    async def kill(self) -> None:
        """SIGKILL the server itself, as a crash would, and wait until all of it is gone."""
        if self.running:
            with suppress(ProcessLookupError):  # it ended a moment ago, and its supervisor is about to notice
                os.kill(self.pid, signal.SIGKILL)
        await self.wait()

    def logged(self) -> str:
        """The last of what this run logged."""
        with self._launch.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - TAIL_BYTES))
            return log.read().decode(errors="replace")

    def tail(self) -> str:
        """The last lines of the log and where the rest is, to end an error message with."""
        lines = [line for line in self.logged().splitlines() if line.strip()][-TAIL_LINES:]
        return "\n".join([*lines, f"(log: {self._launch.log})"])

    async def _learn_pid(self) -> None:
        assert self._supervisor.stdout is not None
        line = await self._supervisor.stdout.readline()
        if not line:
            raise EmbeddedServerError(f"The supervisor of {self._launch.command[0]} did not start:\n{self.tail()}")
        self.pid = int(line)


def environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return inherited | {"LC_ALL": "C", "TZ": "UTC"}


def open_log(path: Path) -> int:
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        os.replace(path, path.with_name(path.name + ".old"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
