"""What is known of the stream's servers, and what is said of it to those who record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from nats.js.api import StreamConfig
from pydantic import BaseModel, ConfigDict

SILENT_S = 2.5
"""A replica that the leader has not heard of for so long takes no part in acknowledging: their heartbeats come each
second."""


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """One server's own word; another `server_id` or `started` is another process, which may have other settings."""

    name: str
    server_id: str
    version: str
    started: str
    sync_always: bool

    @classmethod
    def of(cls, varz: Mapping[str, Any]) -> Self:
        """From what `/varz` shows."""
        config = (varz.get("jetstream") or {}).get("config") or {}
        return cls(
            name=str(varz.get("server_name")),
            server_id=str(varz.get("server_id")),
            version=str(varz.get("version")),
            started=str(varz.get("start")),
            # sync_interval still reads two minutes where this is true.
            sync_always=config.get("sync_always") is True,
        )


@dataclass(frozen=True, kw_only=True)
class StreamFacts:
    """The stream as its leader tells of it; `replicas` names the leader's server first.

    `silent`: those of them that the leader does not hear of. `unheard`: that it has not heard of since it leads, and of
    which it never says that they are silent.
    """

    config: StreamConfig
    replicas: tuple[str, ...]
    leader: str | None
    silent: frozenset[str] = frozenset()
    unheard: frozenset[str] = frozenset()

    @classmethod
    def of(cls, detail: Mapping[str, Any], *, alone: str) -> Self:
        """From what JetStream shows of a stream; `alone` is the only server where it knows of no cluster."""
        config = StreamConfig.from_response(dict(detail["config"]))
        cluster = detail.get("cluster")
        if not cluster:
            return cls(config=config, replicas=(alone,), leader=alone)
        leader, peers = cluster.get("leader") or None, cluster.get("replicas") or ()
        names = [*([str(leader)] if leader else []), *(str(peer.get("name")) for peer in peers)]
        return cls(
            config=config,
            replicas=tuple(names),
            leader=leader,
            silent=frozenset(str(peer.get("name")) for peer in peers if _silent(peer)),
            unheard=frozenset(str(peer.get("name")) for peer in peers if _unheard(peer)),
        )


def _silent(peer: Mapping[str, Any]) -> bool:
    return bool(peer.get("offline")) or float(peer.get("active") or 0) > SILENT_S * 1e9


def _unheard(peer: Mapping[str, Any]) -> bool:
    return not peer.get("active") and not peer.get("current")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that was answered within the bound.

    `faults` are what asking failed by for good, `missing` by want of an answer that may still come. `everywhere`: what
    answers nobody here takes no part in acknowledging either, as on the system account, whose questions go the
    replicas' own way.
    """

    servers: tuple[ServerFacts, ...] = ()
    stream: StreamFacts | None = None
    faults: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    everywhere: bool = False


class AttestedServer(BaseModel):
    """A replica's server that is proven to fsync before it acknowledges."""

    model_config = ConfigDict(frozen=True)

    name: str
    server_id: str
    version: str
    started: str

    def __str__(self) -> str:
        return f"{self.name} ({self.version}, up since {self.started[:19]}Z)"


class Attestation(BaseModel):
    """What a prober found; `faults` is empty when acknowledged events are proven to be on disks.

    Times are seconds before it was said, for clocks differ. `absent`: replicas that are away, without which the others
    are a majority. `settled` is false while an answer may still come: ask again. `prober`: who asked, None where nobody
    did; `source`: whom.
    """

    model_config = ConfigDict(frozen=True)

    faults: tuple[str, ...] = ()
    servers: tuple[AttestedServer, ...] = ()
    absent: tuple[str, ...] = ()
    settled: bool = True
    prober: str | None = None
    source: str | None = None
    asked_s_ago: float = 0.0
    unchanged_s: float = 0.0
    valid_s: float = 0.0

    @property
    def proven(self) -> bool:
        return not self.faults
