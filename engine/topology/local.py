"""A topology's servers on this machine: ports and passwords, kept so that each knows all others before they run."""

import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from relight.engine.embedded.home import make_home, running_regions
from relight.engine.embedded.members import ROUTE, Member
from relight.engine.embedded.nats import AGENT, SYSTEM, USER
from relight.engine.embedded.ports import LOOPBACK, free_port, is_free
from relight.engine.embedded.private import write_private
from relight.engine.errors import EmbeddedServerError
from relight.engine.topology.model import UNIQUE_REGION, UNIQUE_ZONE, ZONES, Kind, Topology

CLUSTER: Final = "relight"
KEPT, LOCK = "cluster.json", "cluster.lock"


class MemberPorts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    client: int
    monitor: int
    route: int


class LocalCluster(BaseModel):
    """`ports` by server. `routes`: where one server finds another, if not at its own port (a proxy between them);
    then `advertise` is an address that leads nowhere, so that servers do not tell each other a way around."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passwords: Mapping[str, str]
    ports: Mapping[str, MemberPorts]
    routes: Mapping[str, Mapping[str, str]] = {}
    clients: Mapping[str, Mapping[str, str]] = {}
    """The same for a region's clients: where they find another server."""
    advertise: str | None = None

    def member(self, topology: Topology, region: str, name: str) -> Member:
        """The server `name`, which is one of `members_of(topology, region)`."""
        ports, by_way_of = self.ports[name], self.routes.get(name, {})
        zoned = topology.fleet.kind is Kind.ZONE
        return Member(
            name=name,
            cluster=CLUSTER,
            tags=(f"{UNIQUE_REGION}{region}", *((f"{UNIQUE_ZONE}{name}",) if zoned else ())),
            unique_tag=UNIQUE_ZONE if zoned else UNIQUE_REGION,
            client_port=ports.client,
            monitor_port=ports.monitor,
            route_port=ports.route,
            routes=tuple(
                by_way_of.get(other, f"{LOOPBACK}:{self.ports[other].route}")
                for other in all_members(topology)
                if other != name
            ),
            passwords=self.passwords,
            advertise=self.advertise,
        )

    def urls(self, login: str, topology: Topology, region: str) -> str:
        """All servers' addresses for clients of a login, those of `region` first."""
        near = members_of(topology, region)
        names = (*near, *(name for name in all_members(topology) if name not in near))
        by_way_of = self.clients.get(region, {})
        found = [by_way_of.get(name, f"{LOOPBACK}:{self.ports[name].client}") for name in names]
        return ",".join(f"nats://{login}:{self.passwords[login]}@{address}" for address in found)

    def monitor_urls(self, topology: Topology) -> tuple[str, ...]:
        return tuple(f"http://{LOOPBACK}:{self.ports[name].monitor}" for name in all_members(topology))


def members_of(topology: Topology, region: str) -> tuple[str, ...]:
    """The names of a region's NATS servers."""
    if topology.fleet.kind is Kind.ZONE:
        return tuple(f"{region}-{zone}" for zone in range(1, ZONES + 1))
    return (region,)


def all_members(topology: Topology) -> tuple[str, ...]:
    return tuple(name for region in topology.regions for name in members_of(topology, region))


def kept_cluster(home: Path, topology: Topology, *, renewed: bool = False) -> LocalCluster:
    """What the home has, made where it lacks; `renewed`: ports that others took meanwhile are replaced.

    Only for who starts all regions: one that runs already has told its ports to nobody else.
    """
    make_home(home)
    with _locked(home):
        kept = _read(home)
        ports = dict(kept.ports) if kept else {}
        if renewed and not running_regions(home):
            ports = {name: held for name, held in ports.items() if all(map(is_free, held.model_dump().values()))}
        taken = {port for held in ports.values() for port in held.model_dump().values()}
        for name in all_members(topology):
            if name not in ports:
                ports[name] = MemberPorts(**{kind: _another(taken) for kind in MemberPorts.model_fields})
        passwords = kept.passwords if kept else {login: secrets.token_hex(24) for login in (USER, AGENT, SYSTEM, ROUTE)}
        cluster = LocalCluster(
            passwords=passwords,
            ports=ports,
            routes=kept.routes if kept else {},
            clients=kept.clients if kept else {},
            advertise=kept.advertise if kept else None,
        )
        if cluster != kept:
            _write(home, cluster)
        return cluster


def routed_cluster(
    home: Path,
    topology: Topology,
    routes: Mapping[str, Mapping[str, str]],
    *,
    clients: Mapping[str, Mapping[str, str]] | None = None,
    advertise: str | None,
) -> LocalCluster:
    """The same with other ways between its servers, before they are started: `routes[a][b]` is where a finds b,
    `clients[a][b]` where the clients of region a do."""
    kept_cluster(home, topology)
    with _locked(home):
        kept = _read(home)
        assert kept is not None, "it was made a moment ago"
        cluster = kept.model_copy(update={"routes": routes, "clients": clients or {}, "advertise": advertise})
        _write(home, cluster)
        return cluster


def _another(taken: set[int]) -> int:
    while (port := free_port()) in taken:
        pass
    taken.add(port)
    return port


def _read(home: Path) -> LocalCluster | None:
    try:
        return LocalCluster.model_validate_json((home / KEPT).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise EmbeddedServerError(f"{home / KEPT} cannot be read: remove it, then new ports are chosen.") from error


def _write(home: Path, cluster: LocalCluster) -> None:
    write_private(home / KEPT, cluster.model_dump_json() + "\n")


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
