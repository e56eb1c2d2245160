"""A server that is one of several: what it is told of the others before any of them runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from relight.engine.embedded.ports import LOOPBACK

ROUTE = "route"
"""The login of servers at each other."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """Clients are told all members' addresses by us, with their login, so that servers need not (`no_advertise`).

    `passwords` by login, the same for all members; `routes` are the others' addresses, `host:port`.

    `unique_tag` is the prefix of that of `tags` which no two copies of a stream may share. `advertise` is what others
    are told of this server's own route: an address nobody answers at keeps them from finding a way around `routes`.
    """

    name: str
    cluster: str
    tags: tuple[str, ...]
    unique_tag: str
    client_port: int
    monitor_port: int
    route_port: int
    routes: tuple[str, ...]
    passwords: Mapping[str, str] = field(repr=False)
    advertise: str | None = None

    @property
    def ports(self) -> dict[str, int]:
        return {"client": self.client_port, "monitor": self.monitor_port}

    def config(self) -> str:
        """Of the server's configuration, what it has beside one that stands alone."""
        password = self.passwords[ROUTE]
        routes = "\n".join(f'    "nats-route://{ROUTE}:{password}@{route}"' for route in self.routes)
        advertise = "" if self.advertise is None else f'  advertise: "{self.advertise}"\n'
        tags = ", ".join(f'"{tag}"' for tag in self.tags)
        return f"""\
server_tags: [{tags}]
cluster {{
  name: "{self.cluster}"
  listen: "{LOOPBACK}:{self.route_port}"
{advertise}\
  no_advertise: true
  authorization {{ user: "{ROUTE}", password: "{password}" }}
  routes: [
{routes}
  ]
}}
"""
