"""What the embedded servers have in common: starting, retrying on a lost port, stopping."""

import asyncio
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from relight.engine.embedded.home import make_home
from relight.engine.embedded.lock import exclusive
from relight.engine.embedded.private import private_folder
from relight.engine.embedded.process import Launch, Owner, SupervisedProcess
from relight.engine.errors import EmbeddedServerError

START_S = 60.0  # recovery after a crash is part of it
ATTEMPTS = 5
POLL_S = 0.005


class EmbeddedServer(ABC):
    """A server on 127.0.0.1 with its data in one folder; ends with this process, however that ends.

    The second start of a folder uses the ports of the first, unless others took them.
    """

    title: ClassVar[str]

    def __init__(self, home: Path, name: str) -> None:
        self.home = home.absolute()
        self.folder = self.home / name
        self.log = self.folder / "log"
        self._owner: Owner | None = None
        self._process: SupervisedProcess | None = None
        self._turn = asyncio.Lock()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """Of the server, not of its supervisor; after its end still the last one."""
        if self._process is None:
            raise self._not_started()
        return self._process.pid

    async def start(self) -> None:
        """Return when the server answers; does nothing when it runs.

        Raises `EmbeddedServerError`: not installed, folder in use or not usable, or the server refused to start.
        """
        async with self._turn:
            if self.running:
                return
            try:
                make_home(self.home)
                private_folder(self.folder, entered_by_others=self._owner is not None)
                async with exclusive(self.folder / "lock", wait_s=START_S / 2) as lock_fd:
                    await self._prepare(lock_fd)
                    self._process = await self._launched(lock_fd)
            except OSError as error:
                raise EmbeddedServerError(f"{self.title} cannot use {self.folder}: {error}.") from error

    async def stop(self, deadline_s: float = 10.0) -> None:
        """End the server in order, by force after `deadline_s`; does nothing when it does not run."""
        async with self._turn:
            if self._process is not None:
                await self._process.stop(deadline_s)

    async def kill(self) -> None:
        """End the server as a crash would; `start()` then recovers its data."""
        async with self._turn:
            if self._process is not None:
                await self._process.kill()

    async def wait(self) -> None:
        """Return when the server was stopped; raise `EmbeddedServerError` when it ended by itself."""
        process = self._process
        if process is None:
            return
        code = await process.wait()
        if not process.stop_asked:
            raise EmbeddedServerError(f"{self.title} ended by itself (exit code {code}):\n{process.tail()}")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _launched(self, lock_fd: int) -> SupervisedProcess:
        for attempt in range(ATTEMPTS):
            process = await SupervisedProcess.start(self._launch(lock_fd, new_ports=attempt > 0))
            try:
                async with asyncio.timeout(START_S):
                    while process.running:
                        if await self._ready(process):
                            return process
                        await asyncio.sleep(POLL_S)
            except TimeoutError:
                await process.stop()
                raise EmbeddedServerError(
                    f"{self.title} was not ready after {START_S:.0f} s:\n{process.tail()}"
                ) from None
            except BaseException:
                await process.stop()
                raise
            # Between choosing a port and binding it, another process can take it.
            if "address already in use" not in process.logged().lower():
                break
        raise EmbeddedServerError(f"{self.title} did not start (exit code {await process.wait()}):\n{process.tail()}")

    def _not_started(self) -> EmbeddedServerError:
        return EmbeddedServerError(f"{self.title} was not started: call start() first.")

    @abstractmethod
    async def _prepare(self, lock_fd: int) -> None:
        """Make the folder ready for `_launch`; `lock_fd` is held."""

    @abstractmethod
    def _launch(self, lock_fd: int, *, new_ports: bool) -> Launch: ...

    @abstractmethod
    async def _ready(self, process: SupervisedProcess) -> bool:
        """Whether the server answers; called again and again until it does."""
