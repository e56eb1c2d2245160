"""Servers with a projector, and the command that imports into them."""

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nats.js.api import StreamState

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.servers import Servers
from relight.engine.service import PROJECTOR_ROLE, Service, caught_up, serving
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import digest_memory, digest_postgres
from relight.engine.tables.queries import run
from relight.projections.query import MAX_LIMIT

COMMAND = [sys.executable, "-c", "from relight.engine.cli.main import main; main()", "import"]
IMPORT_S = 60.0


@dataclass(frozen=True)
class Import:
    """What the command said; `report` is its JSON where it succeeded."""

    exit_code: int
    report: dict[str, Any]
    error: str


@dataclass(frozen=True)
class World:
    """`format` is the name of the files' format."""

    format: str
    service: Service
    servers: Servers

    async def imports(self, *arguments: str | Path) -> Import:
        process = self.start(*arguments, "--json")
        out, error = await asyncio.to_thread(process.communicate, timeout=IMPORT_S)
        return Import(process.returncode, json.loads(out) if process.returncode == 0 else {}, error.decode())

    def start(self, *arguments: str | Path) -> "subprocess.Popen[bytes]":
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
        environment |= {
            "RELIGHT_NATS_URL": self.servers.nats_url,
            "RELIGHT_NATS_MONITOR_URLS": ",".join(self.servers.monitors),
            "RELIGHT_DATABASE_URL": self.servers.database_url,
            "RELIGHT_TENANT": "acme",
            "COLUMNS": "1000",
        }
        return subprocess.Popen(
            [*COMMAND, self.format, *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    async def stream(self) -> StreamState:
        return (await self.service.client.jetstream().stream_info("EV")).state

    def connections(self) -> int:
        with urllib.request.urlopen(f"{self.servers.monitors[0]}/varz", timeout=10) as answer:
            return int(json.loads(answer.read())["connections"])

    async def settled(self, connections: int) -> StreamState:
        """The stream once all that a client sent before it was killed is stored: the server may still have to read it.

        A publish that the stream must refuse waits behind whatever else is queued for it, and leaves nothing.
        """
        async with asyncio.timeout(IMPORT_S):
            while self.connections() != connections:
                await asyncio.sleep(0.01)
        impossible = {"Nats-Expected-Last-Sequence": str(1 << 40)}
        answer = await self.service.client.request("ev.local.recorder.-.none", b"", headers=impossible, timeout=10)
        assert "error" in json.loads(answer.data)
        return await self.stream()

    async def digests(self) -> dict[str, str]:
        """Of the tables, which the stream alone folds to as well."""
        live = await self.tables()
        assert live == (await digest_memory(self.service.client)).tables
        return live

    async def tables(self) -> dict[str, str]:
        """Their digests."""
        assert await caught_up(self.service, within_s=IMPORT_S)
        session = await connect_session(self.servers.database_url, role=PROJECTOR_ROLE)
        try:
            live = await digest_postgres(session)
        finally:
            await session.close()
        assert live.deadletters == 0
        return live.tables

    async def asks(self, query: str, *, tenant: str = "acme", **arguments: object) -> list[dict[str, Any]]:
        """Every row of the answer."""
        rows = await run(self.service.pool, query, tenant=tenant, arguments=arguments, limit=MAX_LIMIT)
        return [row.model_dump() for row in rows]


@asynccontextmanager
async def a_world(format: str, home: Path, database: str) -> AsyncIterator[World]:
    folder = home / f"import-{database.rpartition('/')[2]}"
    async with EmbeddedNats(folder) as nats:
        servers = Servers(nats=nats.url, monitors=(nats.monitor_url,), database=database, ours=False)
        async with serving(servers, Settings(home=folder)) as service:
            yield World(format, service, servers)
