"""The settings, as those who are configured by them want them."""

from typing import TYPE_CHECKING

from relight.engine.recorder.announcing import ANNOUNCE_S
from relight.engine.recorder.options import RecorderOptions
from relight.engine.servers import Servers
from relight.engine.settings import Settings
from relight.engine.tables.pools import PoolOptions

if TYPE_CHECKING:
    from relight.engine.http.limits import HttpLimits


def recorder_options(servers: Servers, settings: Settings) -> RecorderOptions:
    return RecorderOptions(
        nats_url=servers.nats_url,
        nats_monitor_urls=servers.monitors,
        region=settings.said_region or servers.region or settings.region,
        tenant=settings.tenant,
        spools=settings.home / "spool" if settings.spool else None,
        spool_max_bytes=settings.spool_max_bytes,
        spool_retention_s=settings.spool_retention_s,
        memory_max_events=settings.memory_max_events,
        ack_timeout_s=settings.ack_timeout_s,
        proof_ttl_s=settings.proof_ttl_s,
        fault_domain=settings.fault_domain,
        announce_s=ANNOUNCE_S if settings.topology is not None else None,
    )


def pool_options(settings: Settings, *, size: int | None = None) -> PoolOptions:
    return PoolOptions(
        size=size or settings.pool_size,
        acquire_timeout_s=settings.pool_acquire_timeout_s,
        statement_timeout_s=settings.statement_timeout_s,
        drain_s=settings.drain_s,
    )


def http_limits(settings: Settings) -> "HttpLimits":
    """The settings, as the API wants them."""
    from relight.engine.http.limits import HttpLimits  # brings a library that only the API needs

    return HttpLimits(
        rate_low=settings.rate_low,
        rate_standard=settings.rate_standard,
        rate_high=settings.rate_high,
        tenant_requests=settings.tenant_requests,
        turn_timeout_s=settings.pool_acquire_timeout_s,
    )
