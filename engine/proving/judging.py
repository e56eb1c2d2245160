"""What the facts prove: pure, one sentence for each fault."""

from collections.abc import Iterator
from dataclasses import dataclass

from relight.engine.log.declared import keeping_faults
from relight.engine.log.topology import STREAM
from relight.engine.proving.models import AttestedServer, Facts, ServerFacts, StreamFacts


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`faults`: shown to be wrong; `missing`: not answered; `absent`: away, and not needed for what is acknowledged."""

    servers: tuple[AttestedServer, ...] = ()
    faults: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def judge(facts: Facts) -> Verdict:
    """Proven where there is neither a fault nor anything missing."""
    if facts.stream is None:
        return Verdict(faults=facts.faults, missing=facts.missing or _unless(facts.faults, f"no server shows {STREAM}"))
    stream, by_name = facts.stream, {server.name: server for server in facts.servers}
    by_id = {server.server_id: server for server in facts.servers}
    found = {name: by_name.get(name) or by_id.get(name) for name in stream.replicas}
    answered = [server for server in found.values() if server is not None]
    absent = tuple(_absent(facts, stream, found, answered))
    faults, missing = [*facts.faults], []
    if stream.leader is None:
        missing.append(f"stream {STREAM} has no leader just now: its servers elect one")
    for name, server in found.items():
        if server is not None or name in absent:
            continue
        if facts.everywhere:
            missing.append(f"server {name}, which has a replica of stream {STREAM}, does not answer: is it up?")
        elif facts.missing:
            missing += facts.missing
        else:
            faults.append(f"no monitoring address of server {name} is known: add it to RELIGHT_NATS_MONITOR_URLS")
    return Verdict(
        servers=tuple(_attested(server) for server in answered if server.sync_always),
        faults=(*faults, *_stream_faults(stream), *_weak(answered)),
        missing=tuple(dict.fromkeys(missing)),
        absent=absent,
    )


def _absent(
    facts: Facts, stream: StreamFacts, found: dict[str, ServerFacts | None], answered: list[ServerFacts]
) -> Iterator[str]:
    """Neither the prober nor the leader hears of them, and the others are a majority: those acknowledge."""
    replicas = max(len(stream.replicas), stream.config.num_replicas or 1)
    if facts.everywhere and len(answered) > replicas // 2:
        yield from (name for name, server in found.items() if server is None and name in stream.silent)


def _stream_faults(stream: StreamFacts) -> Iterator[str]:
    for fault in keeping_faults(stream.config):
        yield f"stream {STREAM}: {fault}; correct it with `nats stream edit {STREAM}`, or declare it anew"


def _weak(answered: list[ServerFacts]) -> Iterator[str]:
    for server in answered:
        if not server.sync_always:
            yield (
                f"server {server.name} does not fsync before it acknowledges: set sync_interval: always in its"
                " jetstream {} and restart it"
            )


def _attested(server: ServerFacts) -> AttestedServer:
    return AttestedServer(name=server.name, server_id=server.server_id, version=server.version, started=server.started)


def _unless(faults: tuple[str, ...], missing: str) -> tuple[str, ...]:
    return () if faults else (missing,)
