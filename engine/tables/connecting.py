"""One connection to PostgreSQL: a session of its own, and what is wrong when there is none."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg

from relight.engine.errors import AccessRefused, Unreachable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Session = asyncpg.Connection[asyncpg.Record]
else:
    Connection = Session = asyncpg.Connection

CONNECT_S = 10.0
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVES = 5, 2, 3
"""A peer that was cut off without a word is noticed after some 11 s, by either side: its lock is free then."""
GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # "another operation is in progress": it just reads that the server ends it
    OSError,
)
"""How a connection shows that its server went away."""


async def connect_session(
    url: str,
    *,
    role: str | None = None,
    connect_s: float = CONNECT_S,
    statement_timeout_s: float | None = None,
    idle_in_transaction_s: float | None = None,
    name: str = "relight-projector",
) -> Session:
    """A connection of one's own with cached statements; acts as `role` from its beginning.

    `idle_in_transaction_s`: whose process hangs in the middle of a transaction for so long is ended by the server, and
    its locks with it; where it hangs between two messages of one statement, after twice the statement timeout, from
    PostgreSQL 17 on. With a role or a timeout the connection has to be straight to the server: PgBouncer refuses such
    parameters. asyncpg's own codecs: jsonb is text, both ways. Raises `Unreachable`.
    """
    settings = {"application_name": name}
    if role is not None:
        settings |= {"role": role} | _SERVER_KEEPALIVES
    if statement_timeout_s is not None:
        settings["statement_timeout"] = milliseconds(statement_timeout_s)
    if idle_in_transaction_s is not None:
        settings["idle_in_transaction_session_timeout"] = milliseconds(idle_in_transaction_s)
    session = await connect_to(url, connect_s, server_settings=settings)
    _keep_alive(session)
    if idle_in_transaction_s is not None and statement_timeout_s is not None and session.get_server_version() >= (17,):
        # No startup parameter: an older server would refuse the connection for it.
        await session.execute(
            "SELECT set_config('transaction_timeout', $1, false)", milliseconds(2 * statement_timeout_s)
        )
    return session


def milliseconds(seconds: float) -> str:
    """As PostgreSQL's settings take a time; never 0, which would mean without end."""
    return str(max(1, round(seconds * 1_000)))


_SERVER_KEEPALIVES = {
    "tcp_keepalives_idle": str(KEEPALIVE_IDLE_S),
    "tcp_keepalives_interval": str(KEEPALIVE_EVERY_S),
    "tcp_keepalives_count": str(KEEPALIVES),
}


def _keep_alive(session: Session) -> None:
    transport: asyncio.BaseTransport = session._transport  # type: ignore[attr-defined]  # asyncpg offers nothing else
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_EVERY_S),
        ("TCP_KEEPCNT", KEEPALIVES),
    ):
        if hasattr(socket, option):  # macOS has the idle time under another name
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


async def connect_probe(
    url: str,
    *,
    connect_s: float = CONNECT_S,
    name: str = "relight-health",
    parameters: Mapping[str, str] = MappingProxyType({}),
) -> Session:
    """A connection of one's own for looking, through PgBouncer too: nothing outlives its transaction.

    `parameters` are set from its beginning, which PgBouncer does not do. Raises `Unreachable`.
    """
    settings = {"application_name": name, **parameters}
    return await connect_to(url, connect_s, statement_cache_size=0, server_settings=settings)


def address(url: str) -> str:
    """Host and port of a database's URL as it may be shown: never the password, whatever is wrong with the URL."""
    try:
        netloc = urlsplit(url).netloc
    except ValueError:
        netloc = ""
    # An unescaped / ? or # in a password ends the network location early: what is left would begin with it.
    if not netloc or ("@" in url and "@" not in netloc):
        return "the address in RELIGHT_DATABASE_URL"
    host = netloc.rpartition("@")[2]
    return host if ":" in host.rpartition("]")[2] else f"{host or 'localhost'}:5432"


async def connect_to(url: str, connect_s: float, **options: Any) -> Session:
    """`asyncpg.connect` whose failure is an `Unreachable` that says what to do."""
    try:
        connection: Session = await asyncpg.connect(url, timeout=connect_s, **options)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        kind = AccessRefused if isinstance(error, NEVER) else Unreachable
        raise kind(f"PostgreSQL at {address(url)} {_fault(error, connect_s)}") from error
    return connection


NEVER = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
)
"""Refusals that asking again does not change."""


def _fault(error: Exception, connect_s: float) -> str:
    """What is wrong and what to do; texts that may quote the URL are not repeated."""
    match error:
        case asyncpg.InvalidPasswordError():
            return "refuses the password; correct it in RELIGHT_DATABASE_URL"
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"refuses this login ({error}); correct the URL or the server's pg_hba.conf"
        case asyncpg.InvalidCatalogNameError():
            return f"has no such database ({error}); create it or correct the URL"
        case asyncpg.TooManyConnectionsError():
            return "has no connection free; raise max_connections or make the pools smaller"
        case asyncpg.CannotConnectNowError():
            return f"is not ready ({error}); wait a moment and try again"
        case asyncpg.InvalidParameterValueError() | asyncpg.InsufficientPrivilegeError():
            return f"refuses the role ({error}); run `relight migrate` with this login first"
        case asyncpg.ProtocolViolationError() if "startup parameter" in str(error):
            return f"is a PgBouncer ({error}); a projector needs the server's own address"
        case asyncpg.ConnectionDoesNotExistError():
            return "closed the connection at once; is that a PostgreSQL server?"
        case asyncpg.PostgresError():
            return f"refuses the connection ({error}); correct that or the URL"
        case asyncpg.ClientConfigurationError():
            return "cannot be understood: write it as postgresql://user:password@host:port/database"
        case TimeoutError():
            return f"did not answer within {connect_s:g} s; is the address right, and no firewall between?"
        case ConnectionRefusedError():
            return "refuses connections; is the server running, and the port right?"
        case ConnectionError() if "SSL" in str(error):
            return "offers no TLS; enable it there or remove sslmode from the URL"
        case ssl.SSLError():
            return f"failed TLS ({error.reason or error}); check its certificate and the URL's sslmode and sslrootcert"
        case socket.gaierror():
            return "has an unknown host name; correct it in RELIGHT_DATABASE_URL"
        case OSError() if f"[Errno {errno.ECONNREFUSED}]" in str(error):  # a name with several addresses
            return "refuses connections; is the server running, and the port right?"
        case OSError():
            return f"cannot be reached ({error.strerror or type(error).__name__}); check the address and the network"
        case ValueError():
            return "cannot be understood: escape special characters of the password, as in %40 for @"
        case _:
            return f"answers in an unknown way ({error}); is that a PostgreSQL server?"
