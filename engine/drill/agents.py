"""The load of one region as a process of its own, which ends with the region, or with the drill."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

from relight.engine.drill.load import Orders
from relight.engine.embedded.process import open_log
from relight.engine.errors import EmbeddedServerError

SAYS_S = 60.0


class Agents:
    """`relight.engine.app.drill_agents`; it answers by lines."""

    def __init__(self, orders: Orders, log: Path) -> None:
        self.orders = orders
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was not started"
        return self._process.pid

    async def start(self) -> None:
        self.orders.spools.mkdir(parents=True, exist_ok=True)
        log = open_log(self._log)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "relight.engine.app.drill_agents", self.orders.model_dump_json()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")},
            )
        finally:
            os.close(log)
        await self._said("ready")

    def go(self) -> None:
        self._tell("go")

    async def rest(self) -> None:
        """Nothing new; returns once all that was recorded and submitted is acknowledged."""
        self._tell("rest")
        await self._said("resting")

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def end(self) -> None:
        """In order, by force when that takes too long."""
        if not self.alive:
            return
        assert self._process is not None
        with suppress(OSError):
            self._tell("end")
        try:
            async with asyncio.timeout(20):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    def _tell(self, word: str) -> None:
        assert self._process is not None, "it was not started"
        assert self._process.stdin is not None, "it has pipes"
        self._process.stdin.write(f"{word}\n".encode())

    async def _said(self, word: str) -> None:
        assert self._process is not None, "it was not started"
        assert self._process.stdout is not None, "it has pipes"
        try:
            async with asyncio.timeout(SAYS_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b"nothing"
        if word.encode() not in line:
            raise EmbeddedServerError(
                f"the load of region {self.orders.region} said {line.decode().strip() or 'its end'} instead of {word}"
                f" (log: {self._log})"
            )
