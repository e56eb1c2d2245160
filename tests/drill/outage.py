"""PostgreSQL gone for half a minute, then NATS, under load: health says so, recording goes on, all of it catches up."""

import asyncio
import time
from typing import Any

import guarantees
from plan import HEALTH_SAYS_WITHIN_S
from reporting import Report, ms, s
from scene import Scene

from relight.engine.embedded.server import EmbeddedServer

PHASE = "outage"
SPOOLED_WITHIN_MS = 2_000.0
BALANCER_NOTICES_S = 0.5
BACK_S = 5.0
"""How long after a server answers again a question may still fail: connections have to be made anew."""


async def play(scene: Scene, report: Report) -> None:
    for title, server in (("PostgreSQL", scene.postgres), ("NATS", scene.nats)):
        await _without(scene, report, title, server)
    scene.step("checking what is left of it")
    await scene.at_rest()
    await guarantees.check(scene, report, PHASE)


async def _without(scene: Scene, report: Report, title: str, server: EmbeddedServer) -> None:
    plan = scene.plan
    scene.publish(plan.events_per_s)
    scene.begin_asking(clients=plan.clients, warm_up_s=plan.warm_up_s)
    await asyncio.sleep(plan.warm_up_s)
    async with scene.watched(scene.fleet.of("api")[0]) as watch:
        await asyncio.sleep(1)
        scene.step(f"{title} is gone for {plan.away_s:g} s", plan.away_s)
        before, gone = scene.publisher.latest, time.monotonic()
        await server.kill()
        await asyncio.sleep(plan.away_s)
        after = scene.publisher.latest
        await server.start()
        back = time.monotonic()
        scene.step(f"{title} is back: catching up")
        behind_s = await scene.caught_up(to_events=plan.events_per_s)
        await asyncio.sleep(BACK_S)
        bad = watch.last_bad(back)
        said_s = watch.first_bad(gone)
        met = await scene.end_asking()
    samples = [sample for sample in await scene.samples() if gone <= sample["recorded"] < back]
    report.figures[f"{PHASE} {title}"] = met | {
        "gone": gone,
        "back": back,
        "recorded": after["recorded"] - before["recorded"],
        "said_unhealthy_s": said_s,
        "catch_up_s": behind_s,
        "samples": samples,
    }
    report.promise(
        PHASE,
        f"/health says that {title} is gone",
        s(said_s),
        asked=f"<= {HEALTH_SAYS_WITHIN_S:g} s",
        kept=said_s is not None and said_s <= HEALTH_SAYS_WITHIN_S,
    )
    report.figure(PHASE, f"/health is good again after {title} answers", s(bad.at - back if bad else 0))
    due = plan.events_per_s * (after["at"] - before["at"])
    _tell_recording(report, title, samples, after["recorded"] - before["recorded"], due)
    report.figure(PHASE, f"caught up after {title} answers (no more than 1 s of events behind)", s(behind_s))
    tell_failures(report, title, met, gone, back)


def _tell_recording(report: Report, title: str, samples: list[dict[str, float]], recorded: int, due: float) -> None:
    spooled = sorted(sample.get("spooled_ms", float("inf")) for sample in samples)
    projected = [sample for sample in samples if "projected_ms" in sample]
    longest = spooled[-1] if spooled else None
    report.promise(
        PHASE,
        f"recorded without {title}; on this machine's disk after at most",
        f"{recorded:,}; {ms(longest)}",
        asked=f"all of {due:,.0f}; <= {ms(SPOOLED_WITHIN_MS)}",
        kept=recorded > 0.95 * due and longest is not None and longest <= SPOOLED_WITHIN_MS,
    )
    report.promise(
        PHASE,
        f"followed events recorded without {title} that are in the tables now",
        f"{len(projected)} of {len(samples)}",
        asked="all",
        kept=len(projected) == len(samples) > 0,
    )


def tell_failures(report: Report, title: str, met: dict[str, Any], gone: float, back: float) -> None:
    """Only PostgreSQL's absence may be felt by who asks, and only as a 503 with its problem."""
    failures = [failure for failure in met["failures"] if failure["side"] == "http"]
    http = met["sides"]["http"]
    if title == "NATS":
        unlike = failures
    else:
        unlike = [
            failure
            for failure in failures
            if failure["ended"] < gone
            or failure["began"] > back + BACK_S
            or failure["status"] != 503
            or not failure["is_problem"]
        ]
    report.figure(PHASE, f"failed over HTTP without {title}", f"{http['failed']:,} of {http['asked']:,}")
    none_ready = f"time in which no server was ready while {title} was away"
    if title == "NATS":
        # Reading needs no NATS; behind a Kubernetes service it would nevertheless fail, with no server to send it to.
        kept = met["none_ready_s"] < BALANCER_NOTICES_S
        report.promise(PHASE, none_ready, s(met["none_ready_s"]), asked="none", kept=kept)
    else:
        report.figure(PHASE, none_ready, s(met["none_ready_s"]))
    report.promise(
        PHASE,
        f"failed otherwise than with a 503 problem while {title} was away" if title != "NATS" else "failed at all",
        f"{len(unlike):,}",
        asked="0",
        kept=not unlike,
        detail="; ".join(failure["cause"] for failure in unlike)[:600],
    )
