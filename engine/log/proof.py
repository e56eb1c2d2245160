"""Whether the stream's servers fsync before they acknowledge: asked of each, and believed only for a while."""

import asyncio
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import PersistMode, StorageType, StreamInfo

from relight.engine.log.topology import STREAM

MONITOR_TIMEOUT_S = 2.0
UNPROVEN_TTL_S = 1.0
"""So long a negative answer holds: whoever corrects the server need not wait, and many receipts ask only once."""
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, kw_only=True)
class Attestation:
    """What was found; `faults` is empty when every replica's server is proven to fsync."""

    servers: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    asked_at: float = field(default_factory=time.monotonic)

    @property
    def proven(self) -> bool:
        return not self.faults


class Prober:
    """Asks the monitoring address of every replica's server; the answer expires, and a reconnect voids it."""

    def __init__(self, client: Client, *, monitor_urls: Sequence[str], ttl_s: float) -> None:
        self._client = client
        self._js = client.jetstream(timeout=MONITOR_TIMEOUT_S)
        self._monitor_urls = tuple(monitor_urls)
        self._ttl_s = ttl_s
        self._lock = asyncio.Lock()
        self._attestation: Attestation | None = None
        self._asked_after_reconnects = -1

    async def attest(self) -> Attestation:
        """The current attestation, asked anew when it has expired or the connection was lost since."""
        async with self._lock:
            reconnects = self._client.stats["reconnects"]
            held = self._attestation
            if held is None or self._asked_after_reconnects != reconnects or self._expired(held):
                held = self._attestation = await self._ask()
                self._asked_after_reconnects = reconnects
            return held

    def _expired(self, attestation: Attestation) -> bool:
        ttl_s = self._ttl_s if attestation.proven else UNPROVEN_TTL_S
        return time.monotonic() - attestation.asked_at > ttl_s

    async def _ask(self) -> Attestation:
        try:
            info = await self._js.stream_info(STREAM)
        except (NatsError, TimeoutError) as error:
            return Attestation(faults=(f"stream {STREAM} cannot be asked: {str(error) or type(error).__name__}",))
        faults = _stream_faults(info)
        found, unreachable = await self._servers()
        needed = self._replicas(info)
        for name in needed:
            match next(
                (server for server in found if name in (server.get("server_name"), server.get("server_id"))), None
            ):
                case None:
                    faults += unreachable or [
                        f"no monitoring address of server {name} is known: add it to RELIGHT_NATS_MONITOR_URLS"
                    ]
                case server if not _syncs_always(server):
                    faults.append(f"server {name} does not fsync before it acknowledges: set sync_interval: always")
        return Attestation(servers=tuple(needed), faults=tuple(dict.fromkeys(faults)))

    def _replicas(self, info: StreamInfo) -> list[str]:
        if info.cluster is not None and info.cluster.leader:
            return [info.cluster.leader, *(peer.name or "?" for peer in info.cluster.replicas or ())]
        # nats-py has no public name for the id of the server it is connected to.
        return [str(self._client._server_info["server_id"])]

    async def _servers(self) -> tuple[list[dict[str, object]], list[str]]:
        answers = await asyncio.gather(*(asyncio.to_thread(varz, url) for url in self._monitor_urls))
        return [a for a in answers if isinstance(a, dict)], [a for a in answers if isinstance(a, str)]


def varz(url: str) -> dict[str, object] | str:
    """What a server's monitoring address says of it, or why it does not."""
    try:
        with _direct.open(f"{url.rstrip('/')}/varz", timeout=MONITOR_TIMEOUT_S) as response:
            answer: dict[str, object] = orjson.loads(response.read())
            return answer
    except (OSError, ValueError) as error:
        return f"monitoring address {url} does not answer: {error}"


def _stream_faults(info: StreamInfo) -> list[str]:
    faults = []
    if info.config.storage != StorageType.FILE:
        faults.append(f"stream {STREAM} is stored in {info.config.storage}, not in files")
    if info.config.persist_mode not in (None, PersistMode.DEFAULT):
        faults.append(f"stream {STREAM} has persist_mode {info.config.persist_mode}")
    return faults


def _syncs_always(varz: dict[str, object]) -> bool:
    match varz.get("jetstream"):
        case {"config": {"sync_always": True}}:
            return True
        case _:
            return False
