"""Processes that take and give lines of JSON: one end in the drill, the other in the child."""

import asyncio
import os
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

HERE = Path(__file__).parent
LINE_BYTES = 1 << 24
HEARD_S = 120.0
TAIL_CHARS = 2_000


class ChildFailed(Exception):
    """A child of the drill ended before its time."""


class Child:
    """A child as the drill sees it; `latest` is the last tick."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, log: Path) -> None:
        self.process = process
        self.name = name
        self._log = log
        self.latest: dict[str, Any] = {}
        self._heard: defaultdict[str, asyncio.Queue[dict[str, Any]]] = defaultdict(asyncio.Queue)
        self._hearing = asyncio.create_task(self._hear())

    def tell(self, order: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(orjson.dumps(order) + b"\n")

    async def heard(self, kind: str, *, within_s: float = HEARD_S) -> dict[str, Any]:
        """The next line of this kind. Raises `ChildFailed`."""
        waiting = asyncio.create_task(self._heard[kind].get())
        done, _ = await asyncio.wait([waiting, self._hearing], timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if waiting in done:
            return waiting.result()
        waiting.cancel()
        said = self._log.read_text(errors="replace")[-TAIL_CHARS:]
        raise ChildFailed(
            f"{self.name} said no {kind!r} within {within_s:g} s (exit code {self.process.returncode}):\n{said}"
        )

    async def _hear(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            document = orjson.loads(line)
            if document["kind"] == "tick":
                self.latest = document
            else:
                self._heard[document["kind"]].put_nowait(document)


@asynccontextmanager
async def child(script: str, *, log: Path) -> AsyncIterator[Child]:
    """Runs until the `with` ends; its stderr goes to `log`."""
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            HERE / script,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LINE_BYTES,
        )
    running = Child(process, script, log)
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
        running._hearing.cancel()


async def commands() -> AsyncIterator[dict[str, Any]]:
    """In the child: what it is told, until the drill closes its stdin."""
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield orjson.loads(line)


def say(document: Mapping[str, Any]) -> None:
    """In the child: one line. Whole, or a reader would wait for the rest."""
    line = orjson.dumps({"at": time.monotonic(), **document}) + b"\n"
    while line:
        line = line[os.write(1, line) :]
