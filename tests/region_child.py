"""One process of a region, to be stopped and killed: its service that votes and rules, or a worker that only lives.

It prints what it ruled and, as JSON, whose standing changed. `append` on its standard input: it rules after the last
ruling that it knows, and prints what came of that.
"""

import json
import sys
import time
from concurrent.futures import Future
from typing import Any

from relight.engine.errors import RelightError
from relight.engine.log.control import ControlLog, Tail
from relight.engine.policies.isolation import IsolationPolicy
from relight.engine.policies.phi_accrual import PhiPolicy
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.engine.regions.detector import Detector
from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import SERVICE, WORKER, Heartbeats
from relight.engine.regions.isolations import Isolations
from relight.engine.regions.liveness import Liveness, Standing
from relight.events.envelope import PLATFORM
from relight.events.faults import DomainType, FaultIsolated, FaultRuling

REGIONS = ("ap", "eu", "us")
EVERY_S = 0.25
QUICK = PhiPolicy(expected_s=EVERY_S, pause_s=0.75, deviation_min_s=0.15)
QUICK_RULES = IsolationPolicy.of(REGIONS, for_s=0.5, steady_s=0.5, settle_s=0.5)
"""For tests; `default` as the fifth argument: what fleets have."""


def say(**said: object) -> None:
    print(json.dumps({**said, "at": time.time()}), flush=True)


def changed(kind: DomainType, name: str, standing: Standing) -> None:
    say(kind=kind, name=name, standing=standing)


async def append(recorder: Recorder, tail: Tail, name: str) -> str:
    """What becomes of a ruling after that tail."""

    async def work(control: ControlLog) -> None:
        event = FaultIsolated(domain_type=DomainType.REGION, domain_identifier=name, cause="stale", scope="all")
        await control.append(event, after=tail, tenant=PLATFORM, policy_version="test", timeout_s=5)

    try:
        await recorder.with_control(work)
    except RelightError as error:
        return type(error).__name__
    return "appended"


def main() -> None:
    url, region, kind, id, *default = sys.argv[1:]
    policy, rules = (PhiPolicy(), IsolationPolicy.of(REGIONS)) if default else (QUICK, QUICK_RULES)
    with Recorder(RecorderOptions(nats_url=url, region=region, tenant="acme", spools=None)) as recorder:
        beats = Heartbeats(recorder, kind, id, lambda: {"queues": ["refunds"]}, every_s=policy.expected_s)
        running: list[Future[Any]] = [recorder.in_loop(beats.run())]
        if kind == SERVICE:
            heard, isolations = Heard(recorder, policy=policy), Isolations(recorder, REGIONS)
            liveness = Liveness(recorder, heard, isolations, REGIONS)
            liveness.changed.append(changed)
            detector = Detector(recorder, heard, isolations, rules)
            running += [recorder.in_loop(part.run()) for part in (heard, isolations, liveness, detector)]
        else:
            assert kind == WORKER

        async def tail(name: str) -> Tail:
            async def work(control: ControlLog) -> Tail:
                return await control.tail(FaultRuling, tenant=PLATFORM, entity=f"region:{name}")

            return await recorder.with_control(work)

        known: Tail | None = None
        for line in sys.stdin:
            match line.split():
                case ["know", name]:
                    known = recorder.in_loop(tail(name)).result()
                    say(known=known.rev)
                case ["append", name]:
                    assert known is not None
                    say(append=recorder.in_loop(append(recorder, known, name)).result())
                case ["leave"]:
                    recorder.in_loop(beats.leave()).result()
                    break
        for future in running:
            future.cancel()


if __name__ == "__main__":
    main()
