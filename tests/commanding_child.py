"""Many operators at once in one process: each gives one random order on a fleet's routing, sensible or not.

Arguments: NATS address, seed, how many orders. It waits for a line on stdin. It prints one line of JSON: what came of
them, how often they were superseded, how long it took.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from datetime import datetime, timedelta

from relight.engine.errors import FailoverRefused, Superseded
from relight.engine.policies.failover_commands import (
    Abort,
    Back,
    Command,
    Complete,
    Declare,
    Life,
    Rule,
    Sight,
    Sights,
    Start,
    Suspend,
)
from relight.engine.policies.routing import RoutingState, under_way
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.engine.regions.commands import Decider, FailoverCommands
from relight.events.catalog import prepare
from relight.events.failover import FleetRegion, Manner, StandBy

NAMES = ("eu", "us", "ap", "sa", "af")
DEAD = "af"
FLEET = Declare(
    regions=(
        FleetRegion(name="eu", residency="eu", allowed=("us",)),
        FleetRegion(name="us"),
        FleetRegion(name="ap"),
        FleetRegion(name="sa"),
        FleetRegion(name=DEAD),
    ),
    policies=(StandBy(policy_name="ap-lost", source_region="ap", fallback_regions=("us", "sa")),),
    max_failovers=8,
    window_s=2,
    drain_s=1,
)
SIGHTS: Sights = {
    name: Sight(life=Life.ISOLATED if name == DEAD else Life.ALIVE, caught_up=True, suspected_by=2) for name in NAMES
}
KINDS = ("start",) * 8 + ("force", "complete", "complete", "complete", "abort", "back", "back", "override", "declare")


def order(chance: random.Random) -> Decider:
    """One order; what it is about is looked up in the state that it is checked against."""
    kind, one, other = chance.choice(KINDS), chance.choice((*NAMES, "mars")), chance.choice((*NAMES, "mars"))
    manner, late, by = chance.choice(list(Manner)), chance.random() < 0.1, {"ordered_by": "kim", "reason": "why not"}

    def decided(state: RoutingState, now: datetime, sights: Sights) -> Command:
        going = None if state.routing is None else under_way(state.routing)
        failover = state.event_id or "" if going is None or late else going.failover
        match kind:
            case "start":
                return Start(source=one, target=other, manner=manner, **by)
            case "force":
                source = going.source_region if going else one
                return Start(source=source, target=other, manner=Manner.FORCED, failover=failover, **by)
            case "complete":
                return Complete(failover=failover, reason="it has caught up")
            case "abort":
                return Abort(failover=failover, **by)
            case "back":
                return Back(source=one, **by)
            case "override":
                rules = chance.choice(((Rule.RESIDENCY,), (Rule.CHANGES_PER_WINDOW,), (Rule.ONE_AT_A_TIME,)))
                return Suspend(rules=rules, expires_at=now + timedelta(days=3 if late else 0, seconds=0.5), **by)
            case _:
                return Declare(regions=FLEET.regions, policies=FLEET.policies, max_failovers=8 + late, window_s=2)

    return decided


async def give(commands: FailoverCommands, decider: Decider, came: Counter[str], after_s: float) -> None:
    await asyncio.sleep(after_s)
    try:
        ruled = await commands.rule(decider)
    except FailoverRefused as error:
        came["unexplained"] += len(error.detail) < 10
        came[f"refused {error.rule}"] += 1
    except Superseded:
        came["given up"] += 1
    else:
        assert ruled.tail.event is not None
        came[f"ruled {ruled.tail.event.type}" if ruled.made else "said already"] += 1
        came["superseded"] += ruled.superseded


async def give_all(recorder: Recorder, seed: int, count: int) -> Counter[str]:
    """All within a second: those that came first have changed what the later ones find."""
    chance, came = random.Random(seed), Counter[str]()
    commands = FailoverCommands(recorder, "agents", sights=lambda: SIGHTS)
    await asyncio.gather(*(give(commands, order(chance), came, chance.random()) for _ in range(count)))
    return came


def main() -> None:
    url, seed, count = sys.argv[1:]
    prepare()
    with Recorder(RecorderOptions(nats_url=url, region="eu", tenant="-", spools=None)) as recorder:
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.perf_counter()
        came = asyncio.run(give_all(recorder, int(seed), int(count)))
        print(json.dumps({"came": came, "s": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
