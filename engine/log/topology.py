"""The stream and the content store as they must be declared, and the connection to their server."""

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, ObjectStoreConfig, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from relight.engine.errors import AccessRefused, Unreachable
from relight.engine.log.steady_client import SteadyClient
from relight.events.subjects import STREAM_SUBJECTS

STREAM = "EV"
CONTENT_BUCKET = "content"
REQUEST_TIMEOUT_S = 5.0
RECONNECT_S = 0.2
PING_EVERY_S = 5.0
"""Two of them unanswered, and the third one finds the connection lost."""
STATUS_LINE = b"NATS/1.0 "
MESSAGE_ID = "Nats-Msg-Id"
EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
_MESSAGE_ID = re.compile(rb"\r\nNats-Msg-Id: *([^\r\n]*)", re.IGNORECASE)
MAX_FAILURES = 100
DUPLICATE_WINDOW_S = 120.0
RESTORING = "relight-restoring"
"""In the stream's metadata while it is restored: of which archive. Nobody else reads or writes it meanwhile."""
MAX_EVENT_BYTES = 512 * 1024
"""Half of NATS' default max_payload: an event that is recorded can always be published."""


def stream_config(replicas: int = 1) -> StreamConfig:
    """Settings that the guarantees rest on; `discard=new` refuses rather than forgets."""
    return StreamConfig(
        name=STREAM,
        subjects=list(STREAM_SUBJECTS),
        storage=StorageType.FILE,
        num_replicas=replicas,
        discard=DiscardPolicy.NEW,
        duplicate_window=DUPLICATE_WINDOW_S,
        allow_direct=True,
        allow_atomic=True,
        deny_delete=True,
    )


class Headers(StrEnum):
    """What a client reads of messages' headers: nats-py's parsing of them takes a fifth of a catch-up."""

    ALL = "all"
    MESSAGE_ID = "message_id"
    NONE = "none"


class WatchfulClient(SteadyClient):
    """Counts what its server says of its cluster: that another one came or went, ahead of what follows from that.

    Should nats-py rename the method, changes are noticed by who polls for them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cluster_changes = 0

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        self.cluster_changes += 1
        await super()._process_info(info, initial_connection)


def changes_of(client: Client) -> tuple[int, int]:
    """Other numbers than before: the connection was lost, or the cluster changed, since."""
    return client.stats["reconnects"], client.cluster_changes if isinstance(client, WatchfulClient) else 0


class SwiftClient(WatchfulClient):
    """Leaves headers unparsed, but for the server's status lines and, where it is told so, the message id.

    Should nats-py rename the method, only the speed goes.
    """

    def __init__(self, *, message_ids: bool) -> None:
        super().__init__()
        self._message_ids = message_ids

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        if headers and headers.startswith(STATUS_LINE):
            parsed: dict[str, str] | None = await super()._process_headers(headers)
            return parsed
        if self._message_ids and headers and (found := _MESSAGE_ID.search(headers)):
            return {MESSAGE_ID: found[1].decode(errors="surrogateescape")}  # whatever bytes a sender chose
        return None


def addresses(url: str) -> list[str]:
    """The servers of a comma-separated list, the one to be tried first in front."""
    return [one.strip() for one in url.split(",") if one.strip()] or [url]


def named(url: str) -> str:
    """The servers without their logins, as messages say them."""
    parts = [urlsplit(one) for one in addresses(url)]
    return "NATS at " + ", ".join(f"{part.hostname}:{part.port or 4222}" for part in parts)


async def connect(url: str, *, name: str, headers: Headers = Headers.ALL) -> Client:
    """A client that reconnects for ever and buffers nothing: the spool is the only buffer.

    `url` may be a list: servers of one cluster, comma-separated, tried in this order.
    `headers`: less than all of them for reading the stream. Raises `Unreachable` when the server cannot be reached now.
    """
    servers, login = _login(addresses(url))
    failures: list[Exception] = []
    refused = asyncio.Event()

    async def on_error(error: Exception) -> None:
        del failures[:-MAX_FAILURES]
        failures.append(error)
        if _refuses(error):
            refused.set()

    client = WatchfulClient() if headers is Headers.ALL else SwiftClient(message_ids=headers is Headers.MESSAGE_ID)
    connecting = asyncio.ensure_future(
        client.connect(
            servers,
            user=login.user,
            password=login.password,
            token=login.token,
            name=name,
            dont_randomize=True,
            pending_size=0,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type]  # it sleeps so long: fractions will do
            connect_timeout=2,
            ping_interval=PING_EVERY_S,  # type: ignore[arg-type]  # as above
            max_outstanding_pings=2,
            error_cb=on_error,
        )
    )
    refusal = asyncio.ensure_future(refused.wait())  # nats-py would go on trying
    try:
        await asyncio.wait([connecting, refusal], timeout=REQUEST_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done():
            connecting.result()
            return client
        raise TimeoutError(f"not within {REQUEST_TIMEOUT_S:g} s")
    except (NatsError, OSError, TimeoutError) as error:
        # A server that refuses credentials also closes the connection: either may be noticed first, or last.
        refusals = [failure for failure in failures if _refuses(failure)]
        kind = AccessRefused if refusals or _refuses(error) else Unreachable
        raise kind(_explain(url, (refusals or failures or [error])[-1])) from error
    finally:
        refusal.cancel()
        if not connecting.done() or connecting.cancelled() or connecting.exception() is not None:
            connecting.cancel()
            with suppress(NatsError, OSError, TimeoutError):
                await client.close()


@dataclass(frozen=True, kw_only=True)
class _Login:
    user: str | None = None
    password: str | None = None
    token: str | None = None


def _login(servers: list[str]) -> tuple[list[str], _Login]:
    """The servers, and apart from them the login that they share.

    nats-py takes the login from each address, so it has none for servers that it only hears of later.
    """
    parts = [urlsplit(one) for one in servers]
    logins = {part.netloc.rpartition("@")[0] for part in parts}
    user, _, password = logins.pop().partition(":")
    if logins or not user:
        return servers, _Login()
    bare = [part._replace(netloc=part.netloc.rpartition("@")[2]).geturl() for part in parts]
    return bare, _Login(user=user, password=password) if password else _Login(token=user)


def _refuses(error: Exception) -> bool:
    return "authorization" in str(error).lower()


async def close(client: Client) -> None:
    """A server that is away is left without a word: nats-py would hand it what is pending, and raise."""
    with suppress(NatsError, OSError, RuntimeError):  # the last of them is uvloop's
        await client.close()


def _explain(url: str, cause: Exception) -> str:
    server = named(url)
    if _refuses(cause):
        return f"{server} refuses the credentials: check user, password or token in RELIGHT_NATS_URL"
    reason = str(cause) or type(cause).__name__
    return f"{server} does not answer ({reason}): start it, or correct RELIGHT_NATS_URL"


async def ensure_stream(js: JetStreamContext, *, replicas: int = 1) -> None:
    """Declares the stream where it is not; an existing one keeps its replicas and limits."""
    try:
        await js.stream_info(STREAM)
    except NotFoundError:
        await js.add_stream(config=stream_config(replicas))


async def ensure_content_bucket(js: JetStreamContext) -> None:
    """Declares the object store of contents where it is not, with as many copies as the stream has; one of an earlier
    release learns to take batches."""
    replicas = 1
    try:
        config = (await js.stream_info(f"OBJ_{CONTENT_BUCKET}")).config
    except NotFoundError:
        with suppress(NotFoundError):
            replicas = (await js.stream_info(STREAM)).config.num_replicas or 1
        wanted = ObjectStoreConfig(
            description="contents of events, named <tenant>/<sha256>", storage=StorageType.FILE, replicas=replicas
        )
        await js.create_object_store(CONTENT_BUCKET, config=wanted)
        config = (await js.stream_info(f"OBJ_{CONTENT_BUCKET}")).config
    if not config.allow_atomic:
        await js.update_stream(config.evolve(allow_atomic=True))
