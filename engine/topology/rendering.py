"""nats-server configurations of a topology for real machines: TLS, accounts, and what each login may say and hear."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from relight.engine.embedded.nats import OPEN_BATCHES, OPEN_BATCHES_PER_STREAM
from relight.engine.errors import TopologyRefused
from relight.engine.log.buckets import regional_bucket
from relight.engine.log.content import BUCKET_STREAM
from relight.engine.log.topology import CONTENT_BUCKET, STREAM
from relight.engine.log.watermarks import QUESTION as WATERMARK
from relight.engine.proving.questions import PUSHED, QUESTION
from relight.engine.recorder.heal_messages import HERE, MISSING
from relight.engine.regions.heartbeats import HEARTBEATS
from relight.engine.tasks.asking import FENCED, WORK
from relight.engine.topology.local import CLUSTER, members_of
from relight.engine.topology.model import UNIQUE_REGION, UNIQUE_ZONE, Kind, Topology
from relight.events.breakers import BreakerOpened
from relight.events.subjects import CONTROLS, OBSERVATIONS, token
from relight.events.tasks import TaskRuling

ACCOUNT: Final = "RELIGHT"
CLIENT_PORT, MONITOR_PORT, ROUTE_PORT = 4222, 8222, 6222
MAX_FILE_STORE = "100GB"


def rendered(topology: Topology) -> Mapping[str, str]:
    """Contents by file name, one for each server. Passwords are variables of the server's environment.

    Raises `TopologyRefused` where the servers' addresses are not known.
    """
    if topology.local:
        raise TopologyRefused(
            "whole_addresses", "servers of real machines need addresses: give nats and database of each region"
        )
    return {
        f"{name}.conf": _server(topology, region, name)
        for region in topology.regions
        for name in members_of(topology, region)
    }


def write_rendered(topology: Topology, folder: Path) -> list[Path]:
    """Makes the folder, and replaces files of the same names. Raises `TopologyRefused`."""
    files = rendered(topology)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in files.items():
        path = folder / name
        path.write_text(text)
        paths.append(path)
    return paths


def hosts(topology: Topology) -> dict[str, str]:
    """Of each server by name: of a region with several, its addresses stand comma-separated."""
    found: dict[str, str] = {}
    for region, options in topology.regions.items():
        names = members_of(topology, region)
        addresses = (options.nats or "").split(",")
        if len(addresses) != len(names):
            raise TopologyRefused(
                "whole_addresses", f"regions.{region} has {len(names)} servers and {len(addresses)} addresses in nats"
            )
        for name, address in zip(names, addresses, strict=True):
            if (host := urlsplit(address.strip()).hostname) is None:
                raise TopologyRefused("whole_addresses", f"regions.{region}: no host in an address of nats")
            found[name] = host
    return found


def _server(topology: Topology, region: str, name: str) -> str:
    alone, zoned = topology.fleet.kind is Kind.EMBEDDED, topology.fleet.kind is Kind.ZONE
    tags = [f"{UNIQUE_REGION}{region}", *([f"{UNIQUE_ZONE}{name}"] if zoned else [])]
    unique = "" if alone else f'  unique_tag: "{UNIQUE_ZONE if zoned else UNIQUE_REGION}"\n'
    return f"""\
# Server {name} of region {region}. Certificates lie beside it; each names its host and serves both ends of a route.
# Its environment has RELIGHT_SERVICE_PASSWORD, RELIGHT_SYSTEM_PASSWORD, and of each region's publishers
# RELIGHT_AGENT_PASSWORD_<REGION>.

server_name: "{name}"
server_tags: [{", ".join(_quoted(tag) for tag in tags)}]
listen: "0.0.0.0:{CLIENT_PORT}"
# It knows no password, as everywhere in NATS: names and counts, never messages. For the region's service.
http: "127.0.0.1:{MONITOR_PORT}"

# Clients check the server's certificate (SSL_CERT_FILE says by which authority) and log in by password.
tls {{
{_tls()}
}}
{"" if alone else _cluster(topology, name)}
accounts {{
  {ACCOUNT}: {{
    jetstream: enabled
    users: [
      # The regions' services.
      {{ user: "relight", password: $RELIGHT_SERVICE_PASSWORD }}
{"".join(_agent(region) for region in topology.regions)}\
    ]
  }}
  # The services alone ask all servers through it whether they fsync.
  $SYS: {{ users: [ {{ user: "system", password: $RELIGHT_SYSTEM_PASSWORD }} ] }}
}}

jetstream {{
  store_dir: "/data"
  # By default the server acknowledges first and fsyncs within two minutes: a power cut loses what it acknowledged.
  sync_interval: always
{unique}\
  max_memory_store: 256MB
  max_file_store: {MAX_FILE_STORE}
  limits {{ batch {{ max_inflight_per_stream: {OPEN_BATCHES_PER_STREAM}, max_inflight_total: {OPEN_BATCHES} }} }}
}}
"""


def _tls() -> str:
    return '  cert_file: "server.pem"\n  key_file: "server-key.pem"\n  ca_file: "ca.pem"'


def _cluster(topology: Topology, name: str) -> str:
    routes = "\n".join(
        f'    "nats-route://{host}:{ROUTE_PORT}"' for other, host in hosts(topology).items() if other != name
    )
    return f"""
cluster {{
  name: "{CLUSTER}"
  listen: "0.0.0.0:{ROUTE_PORT}"
  # Clients have all servers' addresses from the topology.
  no_advertise: true
  # Servers know each other by their certificates.
  tls {{
{_tls()}
  verify: true
  }}
  routes: [
{routes}
  ]
}}
"""


def variable(region: str) -> str:
    """Where the server's environment has the password of a region's publishers."""
    return "RELIGHT_AGENT_PASSWORD_" + "".join(char if char.isalnum() else "_" for char in region).upper()


def _agent(region: str) -> str:
    return f"""\
      # Publishers of {region}, who record there and work: they may not speak for others, nor hear others' replies.
      {{ user: "agent-{region}", password: ${variable(region)}
        permissions {{
          publish {{ allow: [
{_listed(may_publish(region))}
          ] }}
          subscribe {{ allow: [
{_listed(MAY_HEAR)}
          ] }}
          allow_responses: true
        }} }}
"""


def may_publish(region: str) -> list[str]:
    """Subjects of a region's publishers: as events, rulings of theirs, and what a recorder asks for derive."""
    return [
        f"{OBSERVATIONS}.{token(region)}.>",
        # Breakers of the fleet are ruled by those who call, tasks by those who work: by compare-and-set.
        f"{CONTROLS}.{BreakerOpened.POLICY}.>",
        f"{CONTROLS}.{TaskRuling.POLICY}.>",
        f"{HEARTBEATS}.{token(region)}.>",
        f"$O.{CONTENT_BUCKET}.>",
        *(QUESTION, WATERMARK, MISSING, HERE, f"{WORK}.*", "announced.>", "in.>", "cmd.>"),
        *_reading(STREAM),
        *_reading(BUCKET_STREAM),
        *(f"$JS.API.DIRECT.GET.{regional_bucket(region).stream}{rest}" for rest in ("", ".>")),
        "$JS.API.INFO",
        "$JS.FC.>",
        "$JS.ACK.>",
    ]


MAY_HEAR: Final = (
    *("_INBOX.>", "watermark.*", "announced.>", "spools"),
    *(PUSHED, MISSING, HERE, f"{HEARTBEATS}.>", f"{FENCED}.*"),
)


def _reading(stream: str) -> Iterator[str]:
    for asked in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET", "CONSUMER.CREATE"):
        yield f"$JS.API.{asked}.{stream}"
    for asked in ("DIRECT.GET", "CONSUMER.CREATE", "CONSUMER.INFO", "CONSUMER.DELETE", "CONSUMER.MSG.NEXT"):
        yield f"$JS.API.{asked}.{stream}.>"


def _listed(subjects: "list[str] | tuple[str, ...]") -> str:
    return "\n".join(f"            {_quoted(subject)}" for subject in subjects)


def _quoted(text: str) -> str:
    return f'"{text}"'
