"""What is examined: settings, and the connections that earlier steps have made for later ones."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

from nats.aio.client import Client

from relight.engine.clock import Clock
from relight.engine.health.models import Health
from relight.engine.proving.prober import Prober
from relight.engine.servers import Servers
from relight.engine.settings import Settings
from relight.engine.tables.connecting import Session
from relight.engine.tables.pools import Pool


@dataclass(frozen=True, kw_only=True)
class Openers:
    """How to come by what only the composition root makes. `serving`: servers, ready to use as commands use them."""

    serving: Callable[[], AbstractAsyncContextManager[Servers]]
    nats: Callable[[str], Awaitable[Client]]
    postgres: Callable[[str, Mapping[str, str]], Awaitable[Session]]
    pool: Callable[[str], Awaitable[Pool]]
    prober: Callable[[Client, Servers], Prober | None]
    service: Callable[[Client | None], Awaitable[Health | None]]


@dataclass(kw_only=True)
class Patient:
    """`tag` names whatever a step makes for a while. A step finds what it needs made, or is skipped."""

    settings: Settings
    faults: tuple[str, ...]
    openers: Openers
    stack: AsyncExitStack
    tag: str
    clock: Clock = field(default_factory=Clock)
    opened: Servers | None = None
    client: Client | None = None
    login: Session | None = None

    def cut_off(self) -> None:
        """Ends the session with PostgreSQL at once, whatever waits in it."""
        if self.login is not None:
            self.login.terminate()

    @property
    def servers(self) -> Servers:
        assert self.opened is not None
        return self.opened

    @property
    def nats(self) -> Client:
        assert self.client is not None
        return self.client

    @property
    def session(self) -> Session:
        """Of the login itself, through whatever stands before the server."""
        assert self.login is not None
        return self.login
