"""What a recorder is told, and what it tells of itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RecorderOptions:
    """What a recorder is told; `spools` is the folder of its spools, None on hosts without a durable disk.

    `publisher` fixes the identity of a source that can be read again (an importer): it has no spool on disk, and does
    not announce itself, so that the same source gives the same bytes. Its events up to `published_pseq` stand on the
    stream already: they are numbered, but not sent again. `fault_domain` is what fails together with this process; None
    for its host. With `announce_s` it tells its fleet so often, by heartbeat, how far its events have come; None: it
    belongs to none.
    """

    nats_url: str
    region: str
    tenant: str
    spools: Path | None
    nats_monitor_urls: Sequence[str] = ()
    publisher: str | None = None
    published_pseq: int = 0
    spool_max_bytes: int = 1 << 30
    spool_retention_s: float = 600
    memory_max_events: int = 100_000
    ack_timeout_s: float = 30
    proof_ttl_s: float = 60
    fault_domain: str | None = None
    announce_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class RecorderHealth:
    """What a recorder knows of itself; times in seconds, sizes in bytes. `failure`: what it is waiting for now.

    `evicted_unsealed`: events that the stream acknowledged and that left the spool for want of room before they were
    safe elsewhere. `restarts`: of its threads. `spool_fault`: why it records in memory although it should have a spool
    on disk. `alarm`: others hold something else under its numbers.
    """

    publisher: str
    recorded_events: int
    refused_events: int
    exposed_events: int
    exposed_bytes: int
    failure: str | None
    refused_contents: int = 0
    evicted_unsealed: int = 0
    restarts: int = 0
    spool_fault: str | None = None
    alarm: str | None = None
