"""The servers of a run, and the stream and databases on them, each new for what measures on it."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import orjson
from measuring import Bench
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.log.topology import STREAM, Headers, connect, ensure_stream
from relight.engine.spool.spool import Spooled
from relight.engine.tables.migrate import migrate
from relight.events.envelope import CONTENT_TYPE

TEMPLATE = "relight_template"
BATCH = 1_000
"""The most that the server takes in one atomic batch."""


@asynccontextmanager
async def running_servers(*, quick: bool) -> AsyncIterator[Bench]:
    """Both servers, fsyncing as in production, in a folder that goes at the end."""
    folder = Path(tempfile.mkdtemp(prefix="relight-bench-", dir="/tmp"))
    folder.chmod(0o755)  # as root, PostgreSQL runs as nobody
    numbers = count(1)
    try:
        async with EmbeddedNats(folder / "home") as nats, EmbeddedPostgres(folder / "home") as postgres:

            @asynccontextmanager
            async def database() -> AsyncIterator[str]:
                name = f"bench_{next(numbers)}"
                await _execute(postgres.url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}", "CHECKPOINT")
                try:
                    yield _named(postgres.url, name)
                finally:
                    await _execute(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")

            await _execute(postgres.url, f"CREATE DATABASE {TEMPLATE}")
            connection = await asyncpg.connect(_named(postgres.url, TEMPLATE))
            await migrate(connection)
            await connection.close()
            yield Bench(nats=nats, database=database, folder=folder, quick=quick)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


@asynccontextmanager
async def connected(bench: Bench, *, headers: Headers = Headers.ALL) -> AsyncIterator[Client]:
    client = await connect(bench.nats.url, name="relight bench", headers=headers)
    try:
        yield client
    finally:
        await client.close()


async def new_stream(client: Client) -> None:
    """An empty stream EV."""
    js = client.jetstream(timeout=30)
    with suppress(NotFoundError):
        await js.delete_stream(STREAM)
    await ensure_stream(js)


async def fill_stream(client: Client, events: Sequence[Spooled]) -> None:
    for first in range(0, len(events), BATCH):
        await publish_raw(client, events[first : first + BATCH])


async def publish_raw(client: Client, events: Sequence[Spooled], *, prefix: str = "", suffix: str = "") -> None:
    """One atomic batch with nats-py alone; subjects get the prefix, message ids the suffix."""
    batch_id = uuid4().hex
    for number, event in enumerate(events, start=1):
        headers = {
            "Content-Type": CONTENT_TYPE,
            "Nats-Msg-Id": event.id + suffix,
            "Nats-Batch-Id": batch_id,
            "Nats-Batch-Sequence": str(number),
        }
        if number < len(events):
            await client.publish(prefix + event.subject, event.body, headers=headers)
        else:
            headers["Nats-Batch-Commit"] = "1"
            answer = await client.request(prefix + event.subject, event.body, timeout=30, headers=headers)
            assert orjson.loads(answer.data)["count"] == len(events), answer.data


def _named(url: str, database: str) -> str:
    return urlsplit(url)._replace(path=database).geturl()


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
