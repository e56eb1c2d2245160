"""A process that records and tells line by line how much of it is spooled, until it is killed."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from relight.engine.embedded.nats import EmbeddedNats


class Telling:
    """Its first line is its process and its publisher; each one after that is the number it has come to."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.publisher = ""

    @classmethod
    async def start(cls, program: str, nats: EmbeddedNats, spools: Path) -> Self:
        """`program`: a file beside the tests."""
        command = [sys.executable, str(Path(__file__).with_name(program)), nats.url, str(spools)]
        child = cls(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        child.publisher = (await child._line()).split()[1]
        return child

    async def told(self, at_least: int) -> int:
        told = 0
        while told < at_least:
            told = int(await self._line())
        return told

    def killed(self, told: int) -> int:
        """The last number that it told, be it only the one that was heard before."""
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGKILL)
        last = max([told, *(int(line) for line in self._process.stdout.read().split("\n")[:-1])])
        self._process.wait()
        self._process.stdout.close()
        return last

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return await asyncio.to_thread(self._process.stdout.readline)
