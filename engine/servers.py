"""Which NATS and PostgreSQL are used: yours, those of a running `relight up`, or ones started for the while."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from relight.engine.embedded.home import HomeLock, running
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.errors import EmbeddedServerError, SettingsError
from relight.engine.settings import Settings

WAIT_FOR_HOME_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Addresses; they contain passwords. `ours`: started here, so that the projector has to run here too."""

    nats: str | None
    monitors: tuple[str, ...]
    database: str | None
    ours: bool
    system: str | None = None
    """NATS as a user of its system account: for the prober alone."""
    agents: str | None = None
    """NATS as others than the service are told, where that is another login."""
    ended: Callable[[], Awaitable[None]] | None = None
    """Of ours: waits until one ends by itself, then raises `EmbeddedServerError`."""

    @property
    def nats_url(self) -> str:
        if self.nats is None:
            raise SettingsError("RELIGHT_DATABASE_URL is set but RELIGHT_NATS_URL is not: set both, or neither")
        return self.nats

    @property
    def database_url(self) -> str:
        if self.database is None:
            raise SettingsError("RELIGHT_NATS_URL is set but RELIGHT_DATABASE_URL is not: set both, or neither")
        return self.database


@asynccontextmanager
async def found_servers(settings: Settings) -> AsyncIterator[Servers]:
    """The servers of the settings, else of a running `relight up` of this home, else started until the `with` ends.

    A home that another command serves just now is waited for. Raises `EmbeddedServerError`.
    """
    if settings.nats_url or settings.database_url:
        yield Servers(
            nats=settings.nats_url,
            monitors=settings.nats_monitor_urls,
            database=settings.database_url,
            ours=False,
            system=settings.nats_system_url,
        )
        return
    deadline = time.monotonic() + WAIT_FOR_HOME_S
    while True:
        if (up := running(settings.home)) is not None:
            yield Servers(nats=up.nats_url, monitors=(up.monitor_url,), database=up.database_url, ours=False)
            return
        lock = HomeLock(settings.home)
        try:
            lock.__enter__()
            break
        except EmbeddedServerError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
    try:
        async with embedded_servers(settings.home) as servers:
            yield servers
    finally:
        lock.__exit__(None, None, None)


@asynccontextmanager
async def embedded_servers(home: Path, *, durable: bool = True) -> AsyncIterator[Servers]:
    """Both servers, started together, their data in `home`."""
    async with AsyncExitStack() as stack:
        nats, postgres = EmbeddedNats(home), EmbeddedPostgres(home, durable=durable)
        await asyncio.gather(stack.enter_async_context(nats), stack.enter_async_context(postgres))

        async def ended() -> None:
            waits = [asyncio.create_task(server.wait()) for server in (nats, postgres)]
            try:
                done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                await done.pop()
            finally:
                for wait in waits:
                    wait.cancel()

        monitors = (nats.monitor_url,)
        yield Servers(
            nats=nats.url,
            monitors=monitors,
            database=postgres.url,
            ours=True,
            system=nats.system_url,
            agents=nats.agent_url,
            ended=ended,
        )
