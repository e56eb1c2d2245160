"""`relight serve` as a process of a test's own, on a port that is known before it answers."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from stack import until

from relight.engine.embedded.nats import EmbeddedNats


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Served:
    """One `relight serve`; it can be stopped and started again on its port."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    port: int
    http: aiohttp.ClientSession
    process: "subprocess.Popen[str] | None" = None
    errors: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relight.engine.cli.main", "serve", "--json", *self.arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code."""
        assert self.process is not None
        _, errors = await asyncio.to_thread(self.process.communicate)
        self.errors.append(errors)
        return self.process.returncode

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and document; 0 where nobody listens."""
        try:
            async with self.http.get(self.url + path) as answer:
                body = await answer.read()
                return answer.status, json.loads(body) if body[:1] in (b"{", b"[") else body
        except aiohttp.ClientConnectionError:
            return 0, None

    async def ready(self) -> None:
        await until(lambda: self._healthy(), f"{self.url} serves")

    async def _healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (await self.ended(), self.errors)
        return (await self.get("/health"))[0] == 200 and (await self.get("/readyz"))[0] != 503


@asynccontextmanager
async def served(
    home: Path, *arguments: str, nats: EmbeddedNats | str, database: str, **settings: object
) -> AsyncIterator[Served]:
    """Started, but not yet waited for; killed when the `with` ends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    port = free_port()
    monitors = {} if isinstance(nats, str) else {"RELIGHT_NATS_MONITOR_URLS": nats.monitor_url}
    environment |= monitors | {
        "RELIGHT_HOME": str(home),
        "RELIGHT_NATS_URL": nats if isinstance(nats, str) else nats.url,
        "RELIGHT_DATABASE_URL": database,
        "RELIGHT_HTTP_PORT": str(port),
        "COLUMNS": "1000",
    }
    environment |= {f"RELIGHT_{name.upper()}": str(value) for name, value in settings.items()}
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as http:
        one = Served(arguments, environment, port, http)
        one.start()
        try:
            yield one
        finally:
            if one.process is not None and one.process.poll() is None:
                one.process.kill()
                await one.ended()
