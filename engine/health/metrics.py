"""The checks as Prometheus metrics; no label names a tenant, an agent or a publisher.

Breakers are named as far as health names them: some of one tenant's.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from relight.engine.health.models import Check, CheckStatus, Health, Status
from relight.engine.health.probe import HealthProbe
from relight.engine.tables.pools import PoolStatistics
from relight.engine.tables.projector import ProjectorState

SEVERITY = {CheckStatus.PASS: 0, CheckStatus.WARN: 1, CheckStatus.FAIL: 2}
COMMIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)

GAUGES = {
    "relight_projection_lag_events": ("projection:lag", 1.0, "Messages on the stream beyond the tables' position."),
    "relight_projection_lag_seconds": ("projection:lagTime", 1.0, "Age of the first of them."),
    "relight_projection_stood_still_seconds": (
        "projection:stoodStill",
        1.0,
        "How long the position has not moved although there are some.",
    ),
    "relight_projection_sequence": ("projection:sequence", 1.0, "Stream sequence that the tables have come to."),
    "relight_stream_last_sequence": ("stream:lastSequence", 1.0, "Last sequence of the stream."),
    "relight_stream_utilization_ratio": ("stream:utilization", 0.01, "Share of the stream's fullest limit."),
    "relight_publisher_gaps": ("projection:gaps", 1.0, "Runs of publishers' numbers that are not on the stream."),
    "relight_missing_events": ("projection:missingEvents", 1.0, "Events that were numbered and are not on the stream."),
    "relight_late_events": ("healing:lateEvents", 1.0, "Events that the stream has lost and that are being healed."),
    "relight_lost_events": ("healing:lostEvents", 1.0, "Events that the stream has lost and that nobody has."),
    "relight_forked_events": ("chains:forks", 1.0, "Events whose number another event has."),
    "relight_broken_links": ("chains:brokenLinks", 1.0, "Events that do not follow the one before them."),
    "relight_tails_in_doubt": ("chains:tailsInDoubt", 1.0, "Publishers that ended without a word."),
    "relight_refused_events": ("projection:refusedEvents", 1.0, "Events that full recorders say they refused."),
    "relight_dead_letters": ("projection:deadLetters", 1.0, "Messages that could not be folded and are not resolved."),
    "relight_spools": ("spools:count", 1.0, "Spools of this machine."),
    "relight_spool_exposed_events": ("spools:exposedEvents", 1.0, "Events in them that the stream has not taken."),
    "relight_spool_exposed_bytes": ("spools:exposedBytes", 1.0, "Bytes of those, content included."),
    "relight_spool_exposed_age_seconds": ("spools:exposedAge", 1.0, "Age of the oldest of those."),
    "relight_recorder_exposed_events": ("recorder:exposedEvents", 1.0, "Events that this process's recorder holds."),
    "relight_archive_lag_events": ("archive:lag", 1.0, "Messages on the stream that are not sealed."),
    "relight_archive_lag_seconds": ("archive:lagTime", 1.0, "Age of the first of them."),
    "relight_archive_sealed_sequence": ("archive:sealedSequence", 1.0, "Last sequence that is sealed."),
    "relight_archive_segments": ("archive:segments", 1.0, "Sealed segments."),
    "relight_archive_size_bytes": ("archive:size", 1.0, "Bytes of them, content not included."),
    "relight_archive_missing_events": (
        "archive:missingMessages",
        1.0,
        "Messages that went from the stream before they were sealed.",
    ),
    "relight_archive_forked_events": (
        "archive:forks",
        1.0,
        "Sealed events that do not follow their publisher's chain.",
    ),
    "relight_postgres_response_seconds": ("postgres:responseTime", 0.001, "How long PostgreSQL took to answer."),
    "relight_nats_response_seconds": ("nats:responseTime", 0.001, "How long JetStream took to answer."),
    "relight_pending_migrations": ("postgres:pendingMigrations", 1.0, "Migrations of this release not applied."),
    "relight_fsync_proof_age_seconds": (
        "fsync:proofAge",
        1.0,
        "How long it has been proven, or not, without a change.",
    ),
    "relight_fsync_asked_age_seconds": ("fsync:asked", 1.0, "How long ago the servers were asked."),
    "relight_disk_free_bytes": ("disk:free", 1.0, "Free where RELIGHT_HOME is."),
}

COUNTERS = {
    "relight_recorder_recorded_events": ("recorder:recordedEvents", "Events that this process's recorder took."),
    "relight_healed_events": ("healing:healedEvents", "Events that the stream had lost and that were put back."),
    "relight_recorder_refused_events": ("recorder:refusedEvents", "Events that it refused for want of space."),
    "relight_recorder_evicted_unsealed_events": (
        "recorder:evictedUnsealed",
        "Events that left its spool for want of room before they were safe elsewhere.",
    ),
    "relight_recorder_restarts": ("recorder:restarts", "How often one of its threads was restarted."),
}


class HealthCollector(Collector):
    """What the probe found last; whoever scrapes lets it look before. What is not known has no sample."""

    def __init__(self, probe: HealthProbe) -> None:
        self._probe = probe

    def describe(self) -> Iterable[Metric]:
        """Empty: names are not collected at registration, when nothing is known yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        yield from _pools(self._probe.pools.statistics())
        health = self._probe.latest
        if health is None:
            return
        yield from _status(health)
        observed = {check.key: check.observed for check in health.checks}
        for name, (key, scale, meaning) in GAUGES.items():
            value = observed.get(key)
            if isinstance(value, int | float):
                yield GaugeMetricFamily(name, meaning, value=value * scale)
        for name, (key, meaning) in COUNTERS.items():
            if isinstance(value := observed.get(key), int):
                yield CounterMetricFamily(name, meaning, value=value)
        yield from _states(health, observed.get("projector:state"))
        yield from _spools(health)
        yield from _breakers(health)


def _status(health: Health) -> Iterable[Metric]:
    overall = GaugeMetricFamily("relight_health", "1 for the status that relight is in.", labels=["status"])
    for status in Status:
        overall.add_metric([status.value], float(health.status is status))
    yield overall
    severity = GaugeMetricFamily(
        "relight_check_severity",
        "0 where the check passes, 1 where it warns, 2 where it fails.",
        labels=["check", "id"],
    )
    for check in health.checks:
        if check.component == "breakers":  # none of them ever warns, and their names have a family of their own
            continue
        severity.add_metric([check.key, check.id or ""], SEVERITY[check.status])
    yield severity


def _states(health: Health, projector: object) -> Iterable[Metric]:
    if projector is not None:
        states = GaugeMetricFamily("relight_projector_state", "1 for the state it is in.", labels=["state"])
        for state in ProjectorState:
            states.add_metric([state.value], float(state.value == projector))
        yield states
    offsets = GaugeMetricFamily(
        "relight_clock_offset_seconds", "How far a server's clock is ahead of this machine's.", labels=["server"]
    )
    reachable = GaugeMetricFamily("relight_server_reachable", "1 where the server answers.", labels=["server"])
    for check in health.checks:
        match check:
            case Check(component="clock", observed=int() | float() as offset_ms):
                offsets.add_metric([check.id or ""], offset_ms / 1_000)
            case Check(component="fsync", measurement="proof"):
                yield GaugeMetricFamily(
                    "relight_fsync_proven", "1 where the servers are proven to fsync.", check.observed == "proven"
                )
            case Check(component="postgres" | "nats", measurement="responseTime"):
                reachable.add_metric([check.component], float(check.status is CheckStatus.PASS))
            case _:
                pass
    yield offsets
    yield reachable


def _spools(health: Health) -> Iterable[Metric]:
    aside = GaugeMetricFamily("relight_spools_aside", "Spools that were put aside and are not retired.")
    events = GaugeMetricFamily(
        "relight_spool_waiting_events", "Events that wait in each spool for the stream.", labels=["spool"]
    )
    age = GaugeMetricFamily("relight_spool_waiting_age_seconds", "Age of the oldest of those.", labels=["spool"])
    for check in health.checks:
        match check:
            case Check(component="spools", measurement="aside", observed=list() as files):
                aside.add_metric([], len(files))
            case Check(
                component="spools", measurement="exposed", observed={"events": int(count), "oldest_s": oldest_s}
            ):
                events.add_metric([check.id or ""], count)
                if isinstance(oldest_s, int | float):
                    age.add_metric([check.id or ""], oldest_s)
            case _:
                pass
    yield from (aside, events, age)


def _breakers(health: Health) -> Iterable[Metric]:
    counted = GaugeMetricFamily("relight_breakers", "Breakers that are not closed, by state.", labels=["state"])
    named = GaugeMetricFamily(
        "relight_breaker_open",
        "1 where a breaker lets no call through, 0 where it lets probes through; a closed one has no sample.",
        labels=["breaker"],
    )
    for check in health.checks:
        match check:
            case Check(component="breakers", measurement="open", observed=int(count)):
                counted.add_metric(["open"], count)
            case Check(component="breakers", measurement="halfOpen", observed=int(count)):
                counted.add_metric(["half_open"], count)
            case Check(component="breakers", measurement="ruling", observed={"state": state}):
                named.add_metric([check.id or ""], float(state == "open"))
            case _:
                pass
    yield from (counted, named)


def _pools(pools: dict[str, PoolStatistics]) -> Iterable[Metric]:
    connections = GaugeMetricFamily(
        "relight_pool_connections", "Connections to PostgreSQL by state.", labels=["pool", "state"]
    )
    size = GaugeMetricFamily("relight_pool_size", "Connections that there may be.", labels=["pool"])
    waiting = GaugeMetricFamily("relight_pool_waiting_requests", "Requests that wait for one.", labels=["pool"])
    acquired = CounterMetricFamily("relight_pool_acquires", "Connections handed out.", labels=["pool"])
    exhausted = CounterMetricFamily("relight_pool_exhausted", "Requests that got none in time.", labels=["pool"])
    p50 = GaugeMetricFamily("relight_pool_acquire_p50_seconds", "Median wait, of the last 1,000.", labels=["pool"])
    p99 = GaugeMetricFamily("relight_pool_acquire_p99_seconds", "99th percentile of it.", labels=["pool"])
    for name, found in pools.items():
        connections.add_metric([name, "in_use"], found.in_use)
        connections.add_metric([name, "idle"], found.idle)
        size.add_metric([name], found.size)
        waiting.add_metric([name], found.waiting)
        acquired.add_metric([name], found.acquired)
        exhausted.add_metric([name], found.exhausted)
        for family, wait_ms in ((p50, found.acquire_p50_ms), (p99, found.acquire_p99_ms)):
            if wait_ms is not None:
                family.add_metric([name], wait_ms / 1_000)
    yield from (connections, size, waiting, acquired, exhausted, p50, p99)


class ProjectorMetrics:
    """Batches as they are committed; `committed` is the projector's `on_commit`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "relight_projector_commit_seconds",
            "How long PostgreSQL took to write a batch.",
            buckets=COMMIT_BUCKETS_S,
            registry=registry,
        )
        self._events = Histogram(
            "relight_projector_batch_events",
            "Events of a batch.",
            buckets=(1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000),
            registry=registry,
        )

    def committed(self, events: int, took_s: float) -> None:
        self._seconds.observe(took_s)
        self._events.observe(events)


def register_metrics(registry: CollectorRegistry, probe: HealthProbe) -> None:
    """Everything that is measured of this process but HTTP requests."""
    registry.register(HealthCollector(probe))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    if probe.watched.projector is not None:
        probe.watched.projector.on_commit = ProjectorMetrics(registry).committed
