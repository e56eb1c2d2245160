"""Guarded calls follow the fleet's routing: what lies in a region that is switched off is passed over."""

from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.regions.routing import RoutingTable


def follow_routing(breakers: Breakers, table: RoutingTable) -> None:
    """From now on; a region that drains still answers, and one that the fleet does not have is nothing to it."""

    def told() -> None:
        routing = table.routing
        names = () if routing is None else tuple(region.name for region in routing.regions)
        breakers.switch_off({name: table.why_off(name) for name in names if table.is_off(name)})

    table.on_change(told)
    told()
