"""The straight way of a call and the core's: the same scripts, sent both ways, are recorded and handed out alike."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from guarding import NOON, Bench, Both, Notes, idle_recorder

import relight
from relight.engine.clock import ScriptedClock
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.calls.first import First
from relight.engine.guard.facts import Attempt, Call
from relight.engine.guard.guard import Guard
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.recording import events
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.recorder.recorder import Recorder

SCRIPTS: dict[str, list[Step]] = {
    "it works": [],
    "another success than 200": [Step(status=201)],
    "a server error, then it works": [Step(status=500)],
    "a limit with a wait": [Step(status=429, headers={"retry-after": "7"})],
    "overloads to the end": [Step(status=529, times=99)],
    "what nobody asks again": [Step(status=400)],
    "a reset, then it works": [Step(fault=Fault.RESET_BEFORE_HEADERS)],
    "no JSON, then it works": [Step(fault=Fault.MALFORMED_JSON)],
    "half a body, then it works": [Step(fault=Fault.TRUNCATED)],
    "another content type, then it works": [Step(fault=Fault.WRONG_CONTENT_TYPE)],
    "an empty body, then it works": [Step(fault=Fault.EMPTY_BODY)],
    "a breaker that trips": [Step(status=500, times=99)],
}
POLICY = GuardPolicy(jitter=0, retries=2, breaker=None)
BREAKS = GuardPolicy(jitter=0, breaker=BreakerPolicy(consecutive_failures=2, jitter=0, open_s=3, fleet=None))


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with idle_recorder(ScriptedClock(NOON)) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeAnthropic]:
    with fake_anthropic_thread() as fake:
        yield fake


@pytest_asyncio.fixture(params=[True, False], ids=["async", "sync"])
async def both(request: pytest.FixtureRequest) -> AsyncIterator[Both]:
    both = Both(request.param)
    yield both
    await both.close()


@pytest.mark.parametrize("script", SCRIPTS)
async def test_both_ways_record_and_hand_out_the_same(
    recorder: Recorder, fake: FakeAnthropic, both: Both, script: str
) -> None:
    straight = await _told(recorder, fake, both, script, straight=True)
    assert straight == await _told(recorder, fake, both, script, straight=False)
    assert straight["recorded"]


async def test_a_call_that_works_needs_no_core(
    recorder: Recorder, fake: FakeAnthropic, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.play(())
    bench = Bench(recorder, ScriptedClock(NOON), fake)
    claude = both.client(fake, bench.guard(POLICY))

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the core was asked")

    monkeypatch.setattr(First, "__init__", forbidden)
    assert (await both.text(claude)).endswith("hello there")
    with relight.deadline(60):
        assert (await both.text(claude)).endswith("hello there")
    assert len(bench.notes.known_calls) == 2


async def _told(recorder: Recorder, fake: FakeAnthropic, both: Both, script: str, *, straight: bool) -> dict[str, Any]:
    """Of two calls, one after the other: what came of them, what was waited, and the events of what was noted."""
    clock = recorder.clock
    assert isinstance(clock, ScriptedClock)
    clock.move_to(NOON)
    fake.play(SCRIPTS[script])
    bench = Bench(recorder, clock, fake)
    policy = BREAKS if script == "a breaker that trips" else POLICY
    guard: Guard = bench.guard(policy, breakers=Breakers(recorder))
    guard._parts.straight = straight
    claude = both.client(fake, guard)
    came = []
    for _ in range(2):
        try:
            came.append(await both.text(claude))
        except Exception as error:
            came.append(type(error).__name__)
        clock.advance(1)
    return {"came": came, "waited_s": bench.waited_s, "recorded": list(_events(bench.notes))}


def _events(notes: Notes) -> Iterator[tuple[object, ...]]:
    """Names of decisions and of requests are of the guard and the server."""
    for call in notes.calls:
        yield "taken", _at(call), events.taken(_nameless(call), None)
    for attempt in notes.attempts:
        seen = replace(attempt, request_id=attempt.request_id and "r")
        call = _nameless(notes.calls[0])
        yield "attempted", _at(attempt), attempt.body, events.attempted(call, seen, None), events.depended(seen)
    for call in notes.known_calls:
        yield "known", _at(call), events.known(_nameless(call), None, None, None), call.served_by


def _nameless(call: Call) -> Call:
    return replace(call, decision="d")


def _at(fact: Call | Attempt) -> tuple[int, int | None]:
    return fact.started_us, fact.ended_us
