"""Which prober the settings lead to."""

from nats.aio.client import Client

from relight.engine.log.topology import connect
from relight.engine.proving.monitors import Monitors
from relight.engine.proving.prober import SETTLE_S, Prober
from relight.engine.proving.sources import Source
from relight.engine.proving.system import SystemAccount
from relight.engine.servers import Servers

MONITORS_POLL_S = 2.0
SYSTEM_POLL_S = 1.0


def polling_prober(
    client: Client, servers: Servers, *, ttl_s: float, name: str, settle_s: float = SETTLE_S
) -> Prober | None:
    """For `answering`: asks the system account, else the monitoring addresses; None where neither is known."""
    if (source := _source(client, servers)) is None:
        return None
    poll_s = SYSTEM_POLL_S if servers.system is not None else MONITORS_POLL_S
    return Prober(client, source, ttl_s=ttl_s, name=name, poll_s=poll_s, settle_s=settle_s)


def single_prober(client: Client, servers: Servers, *, ttl_s: float) -> Prober | None:
    """The same for who asks now and then: what is not answered within the bound counts as a no at once."""
    source = _source(client, servers)
    return None if source is None else Prober(client, source, ttl_s=ttl_s, settle_s=0)


def _source(client: Client, servers: Servers) -> Source | None:
    if (url := servers.system) is not None:
        return SystemAccount(client, lambda: connect(url, name="relight prober"))
    return Monitors(client, servers.monitors) if servers.monitors else None
