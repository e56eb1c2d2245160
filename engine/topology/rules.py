"""The rules that a topology keeps, each with its name; the first that is broken is raised."""

from collections.abc import Iterable, Iterator

from relight.engine.errors import TopologyRefused
from relight.engine.topology.model import Kind, Topology


def checked(topology: Topology) -> Topology:
    """The same. Raises `TopologyRefused`."""
    for broken in broken_rules(topology):
        raise broken
    return topology


def broken_rules(topology: Topology) -> Iterator[TopologyRefused]:
    """Every rule that is broken, the plainest first."""
    yield from _regions(topology)
    yield from _addresses(topology)
    yield from _names(topology)
    yield from _policies(topology)
    yield from _queues(topology)


def _regions(topology: Topology) -> Iterator[TopologyRefused]:
    kind, count = topology.fleet.kind, len(topology.regions)
    if kind is not Kind.STRETCH:
        if count != 1:
            yield TopologyRefused(
                "one_region", f"a topology of kind {kind} has one region, not {count}: choose stretch, or leave one"
            )
        return
    if count < 2:
        yield TopologyRefused(
            "two_regions",
            f"a stretch over {count} region has nowhere to fail over to: name three or five regions, or choose zone",
        )
    elif count not in (3, 5):
        why = "an even number of regions has no quorum when half are lost" if count % 2 == 0 else "that is too many"
        yield TopologyRefused(
            "odd_quorum", f"a stretch has three or five regions, not {count} ({why}): add one, or take one away"
        )


def _addresses(topology: Topology) -> Iterator[TopologyRefused]:
    for name, region in topology.regions.items():
        if (region.nats is None) != (region.database is None):
            lacking = "nats" if region.nats is None else "database"
            yield TopologyRefused(
                "whole_addresses", f"regions.{name} lacks {lacking}: give both addresses, or neither for local servers"
            )
    given = [name for name, region in topology.regions.items() if region.nats is not None]
    if given and len(given) != len(topology.regions):
        without = ", ".join(name for name in topology.regions if name not in given)
        yield TopologyRefused(
            "whole_addresses", f"regions without addresses beside some that have them: {without}; give all, or none"
        )


def _names(topology: Topology) -> Iterator[TopologyRefused]:
    yield from _once("policies", (policy.name for policy in topology.policies))
    yield from _once("queues", (queue.name for queue in topology.queues))
    for policy in topology.policies:
        yield from _once(f"fallbacks of policy {policy.name}", policy.fallbacks)
    for queue in topology.queues:
        yield from _once(f"replicas of queue {queue.name}", queue.replicas)


def _once(where: str, names: Iterable[str]) -> Iterator[TopologyRefused]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield TopologyRefused("named_once", f"{name} stands twice in the {where}: leave one")
        seen.add(name)


def _policies(topology: Topology) -> Iterator[TopologyRefused]:
    for name, region in topology.regions.items():
        yield from _known(topology, f"allowed of regions.{name}", region.allowed)
    for policy in topology.policies:
        where = f"policy {policy.name}"
        if unknown := list(_known(topology, where, (policy.source, *policy.fallbacks))):
            yield from unknown
            continue
        if policy.source in policy.fallbacks:
            yield TopologyRefused(
                "not_onto_itself", f"{where} would fail {policy.source} over onto itself: take it from the fallbacks"
            )
        for target in policy.fallbacks:
            if target != policy.source and not topology.may_stand_in(policy.source, target):
                stays = topology.regions[policy.source].residency
                yield TopologyRefused(
                    "residency",
                    f"{where}: data of {policy.source} has to stay in {stays}, and {target} is"
                    f" {topology.regions[target].residency or 'of no stated residency'}: take {target} from the"
                    f" fallbacks, or list it in allowed of regions.{policy.source}",
                )
        voters = len(topology.regions) - 1
        if (votes := policy.conditions.suspected_by) is not None and votes > voters:
            yield TopologyRefused(
                "reachable_votes",
                f"{where} waits for {votes} regions to suspect {policy.source}, and {voters} others can: ask fewer",
            )


def _queues(topology: Topology) -> Iterator[TopologyRefused]:
    for queue in topology.queues:
        where = f"queue {queue.name}"
        yield from _known(topology, where, (queue.primary, *queue.replicas))
        if queue.primary in queue.replicas:
            yield TopologyRefused(
                "not_onto_itself", f"{where} has its primary {queue.primary} among the replicas: take it from there"
            )


def _known(topology: Topology, where: str, names: Iterable[str]) -> Iterator[TopologyRefused]:
    for name in names:
        if name not in topology.regions:
            known = ", ".join(topology.regions)
            yield TopologyRefused("known_regions", f"{where} names the region {name}, which is not one of {known}")
