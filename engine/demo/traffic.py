"""Agents at work: model calls with their attempts, and the decisions that they make with them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from pydantic import JsonValue

from relight.engine import scope
from relight.engine.demo.stage import Happened, Stage, Storyline, Teller
from relight.engine.demo.world import LYRA, MODELS, ORION, WORKS, Work, provider_in
from relight.events.breakers import BreakerFailed, BreakerSucceeded
from relight.events.decisions import DecisionCheckpointed, DecisionOutcomeKnown, DecisionTaken, Outcome
from relight.events.envelope import PLATFORM

MINUTES_BETWEEN = (4.0, 13.0)
DECISION_SHARE, PROMPT_SHARE = 0.4, 0.04
"""Of the visits are decisions, the others single calls; of the calls keep their prompt in the content store."""
MICROUSD_PER_TOKEN = {ORION: 9, LYRA: 4}


class NoAnswer(Exception):
    """No provider answered."""


@dataclass(frozen=True, slots=True)
class Call:
    """How a model call went, with the breakers' events of its attempts."""

    answered: bool
    attempts: tuple[Happened, ...]


def traffic(region: str) -> Teller:
    """A region's agents at work all day, while it is not lost."""

    async def storyline(stage: Stage) -> Storyline:
        random = stage.random(f"traffic in {region}")
        minutes = random.uniform(*MINUTES_BETWEEN)
        while minutes < 24 * 60 - 5:
            yield f"{minutes // 60}:{minutes % 60}"
            if region not in stage.lost:
                work = random.choice(WORKS)
                if random.random() < DECISION_SHARE:
                    decide(stage, region, work, random)
                else:
                    with scope.entered(tenant=work.tenant, agent=work.agent(region)):
                        call(stage, region, random)
            minutes += random.uniform(*MINUTES_BETWEEN)

    return storyline


def decide(stage: Stage, region: str, work: Work, random: Random, *, call_key: str | None = None) -> Call:
    """An agent decides with the help of a model; without an answer it fails."""
    relight, number = stage.relights[region], random.randrange(10**6)
    with (
        suppress(NoAnswer),
        scope.entered(tenant=work.tenant, agent=work.agent(region), correlation=stage.clock.next_id()),
        relight.decision(
            work.verb, context={"case": number}, decision=f"{work.verb}-decision-{random.getrandbits(48):012x}"
        ) as decision,
    ):
        made = call(stage, region, random, key=call_key)
        if not made.answered:
            raise NoAnswer
        decision.checkpoint("policy_checked", {"rules": 12, "matched": random.randint(1, 4)})
        stage.clock.advance(0.05)
        confidence = round(random.uniform(0.6, 0.99), 2)
        decision.take(random.choice(work.choices), reasoning="within policy", confidence=confidence)
    return made


def call(
    stage: Stage,
    region: str,
    random: Random,
    *,
    providers: Sequence[str] = (ORION, LYRA),
    key: str | None = None,
    probe: bool = False,
) -> Call:
    """One model call: providers are asked in turn, those behind an open breaker only as a `probe`."""
    here, key = scope.current(), key or f"call-{random.getrandbits(48):012x}"
    asked = [p for p in providers if probe or provider_in(p, region) not in stage.open] or providers[-1:]
    prompt = f"case {random.randrange(10**6)}: what applies?".encode()
    taken = DecisionTaken(
        decision=key,
        decision_type="agent_call",
        agent=here.agent,
        context={"purpose": "probe" if probe else "work"},
        provider=asked[0],
        model=MODELS[asked[0]],
        request=stage.relights[region].content(prompt) if random.random() < PROMPT_SHARE else None,
    )
    began = stage.record(region, taken)
    begun_us, attempts = stage.clock.now_us(), []
    for provider in asked:
        failed = random.random() < stage.failing.get(provider_in(provider, region), 0.0)
        attempts.append(_attempt(stage, region, random, key, provider, began, failed=failed))
        if not failed:
            break
    tokens = (random.randint(200, 4_000), random.randint(20, 600))
    outcome = DecisionOutcomeKnown(
        decision=key,
        outcome=Outcome.FAILURE if failed else Outcome.SUCCESS,
        error_class="OverloadedError" if failed else None,
        input_tokens=None if failed else tokens[0],
        output_tokens=None if failed else tokens[1],
        cost_microusd=None if failed else sum(tokens) * MICROUSD_PER_TOKEN[provider],
        latency_ms=(stage.clock.now_us() - begun_us) // 1_000,
    )
    stage.record(region, outcome, cause=attempts[-1], tenant=here.tenant)
    return Call(not failed, tuple(attempts))


def _attempt(
    stage: Stage, region: str, random: Random, key: str, provider: str, began: Happened, *, failed: bool
) -> Happened:
    latency_ms = random.randint(4_000, 9_000) if failed else random.randint(300, 2_400)
    stage.clock.advance(latency_ms / 1_000)
    said: dict[str, JsonValue] = {"error_class": "OverloadedError", "status": 529} if failed else {"status": 200}
    state: dict[str, JsonValue] = {"provider": provider, "region": region, "latency_ms": latency_ms, **said}
    checkpoint = DecisionCheckpointed(decision=key, checkpoint_type="attempt", state_snapshot=state)
    tried = stage.record(region, checkpoint, cause=began)
    service = provider_in(provider, region)
    if failed:
        failure = BreakerFailed(service_name=service, error_class="OverloadedError", details={"status": 529})
        return stage.record(region, failure, tenant=PLATFORM, cause=tried)
    success = BreakerSucceeded(service_name=service, latency_ms=latency_ms)
    return stage.record(region, success, tenant=PLATFORM, cause=tried)
