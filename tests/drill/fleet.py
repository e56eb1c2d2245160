"""Relight's own processes in a drill: API servers and projectors, started, made ready, and ended by SIGTERM."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import aiohttp
import orjson

from relight.engine.embedded.ports import free_port

BIN = Path(sys.executable).parent
READY_S = 60.0
UNREADY_S = 1.0
DRAIN_S = 10.0
POLL_S = 0.05
TAIL_BYTES = 2_000

Kind = Literal["api", "projector"]
ARGUMENTS: Mapping[Kind, Sequence[str]] = {
    "api": ("serve", "--no-projector"),
    "projector": ("serve", "--no-http", "--no-ingest"),
}
"""As in deploy/kubernetes."""


class ServedFailed(Exception):
    """A process of Relight's did not do as it should; what it said is part of the message."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """One process; `url` is where it serves HTTP, or its probes alone."""

    kind: Kind
    name: str
    url: str
    process: asyncio.subprocess.Process
    log: Path


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended: 0 is in order."""

    name: str
    code: int
    seconds: float
    said: str


class Fleet:
    """All of them. `changed` is told the API's addresses whenever they change."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], changed: Callable[[list[str]], Awaitable[None]]
    ) -> None:
        self._folder, self._environment, self._changed = folder, environment, changed
        self._numbers = count(1)
        self.running: list[Served] = []
        self.ended: list[Ended] = []

    def of(self, kind: Kind) -> list[Served]:
        return [served for served in self.running if served.kind == kind]

    async def start(self, kind: Kind) -> Served:
        """Returns once it is ready. Raises `ServedFailed`."""
        name, port = f"{kind}-{next(self._numbers)}", free_port()
        log = self._folder / f"{name}.log"
        environment = {
            **self._environment,
            "RELIGHT_HOME": str(self._folder / name),
            "RELIGHT_HTTP_PORT": str(port),
            "RELIGHT_UNREADY_S": str(UNREADY_S),
            "RELIGHT_DRAIN_S": str(DRAIN_S),
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                BIN / "relight", *ARGUMENTS[kind], env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        served = Served(kind=kind, name=name, url=f"http://127.0.0.1:{port}", process=process, log=log)
        self.running.append(served)
        await self._said()
        await self._ready(served)
        return served

    async def roll(self, served: Served) -> None:
        """One more first, then that one ends: as a rolling update with maxSurge 1 does."""
        await self.start(served.kind)
        await self.end(served)

    async def end(self, served: Served) -> Ended:
        """SIGTERM, and waits; its address is told until it has ended, as its endpoint is in Kubernetes."""
        began = time.monotonic()
        if served.process.returncode is None:
            served.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(UNREADY_S + DRAIN_S + 5):
                code = await served.process.wait()
        except TimeoutError:
            served.process.kill()
            code = await served.process.wait()
        ended = Ended(name=served.name, code=code, seconds=time.monotonic() - began, said=tail(served.log))
        self.running.remove(served)
        self.ended.append(ended)
        await self._said()
        return ended

    async def end_all(self) -> None:
        await asyncio.gather(*(self.end(served) for served in self.running))

    async def command(self, *arguments: str) -> dict[str, object]:
        """A command of `relight` with --json: its document. Raises `ServedFailed`."""
        process = await asyncio.create_subprocess_exec(
            BIN / "relight",
            *arguments,
            "--json",
            env={**self._environment, "RELIGHT_HOME": str(self._folder / "commands")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        answer, errors = await process.communicate()
        if process.returncode != 0:
            said = (errors or answer)[-TAIL_BYTES:].decode(errors="replace")
            raise ServedFailed(f"relight {' '.join(arguments)} ended with {process.returncode}: {said}")
        found: dict[str, object] = orjson.loads(answer)
        return found

    async def _said(self) -> None:
        await self._changed([served.url for served in self.of("api")])

    async def _ready(self, served: Served) -> None:
        deadline = time.monotonic() + READY_S
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as client:
            while time.monotonic() < deadline and served.process.returncode is None:
                try:
                    async with client.get(f"{served.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError, OSError):
                    pass
                await asyncio.sleep(POLL_S)
        raise ServedFailed(f"{served.name} was not ready within {READY_S:g} s:\n{tail(served.log)}")


def tail(log: Path) -> str:
    return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
