"""Which prober the settings lead to."""

from nats.aio.client import Client

from relight.engine.log.topology import connect
from relight.engine.proving.monitors import Monitors
from relight.engine.proving.prober import Prober
from relight.engine.proving.system import SystemAccount
from relight.engine.servers import Servers

MONITORS_POLL_S = 2.0
SYSTEM_POLL_S = 1.0


def polling_prober(client: Client, servers: Servers, *, ttl_s: float, name: str) -> Prober | None:
    """For `answering`: asks the system account, else the monitoring addresses; None where neither is known."""
    if servers.system is not None:
        return Prober(client, _system(client, servers.system), ttl_s=ttl_s, name=name, poll_s=SYSTEM_POLL_S)
    if servers.monitors:
        return Prober(client, Monitors(client, servers.monitors), ttl_s=ttl_s, name=name, poll_s=MONITORS_POLL_S)
    return None


def single_prober(client: Client, servers: Servers, *, ttl_s: float) -> Prober | None:
    """The same for who asks now and then: what is not answered within the bound counts as a no at once."""
    if servers.system is not None:
        return Prober(client, _system(client, servers.system), ttl_s=ttl_s, settle_s=0)
    if servers.monitors:
        return Prober(client, Monitors(client, servers.monitors), ttl_s=ttl_s, settle_s=0)
    return None


def _system(client: Client, url: str) -> SystemAccount:
    return SystemAccount(client, lambda: connect(url, name="relight prober"))
