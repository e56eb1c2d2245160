"""A part of the guard that fails is no failure of the call, and a call belongs to its caller's span and scope."""

from typing import Any

import guarding
import pytest
from guarding import SERVER_ERROR, Bench, Both, Notes
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import relight
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.policy import GuardPolicy
from relight.engine.policies.breaker import BreakerPolicy

stage, bench, both = guarding.stage, guarding.bench, guarding.both


class Broken(Notes):
    """A journal that cannot."""

    def taken(self, call: Any) -> None:
        raise RuntimeError("secret")

    attempted = known = taken  # type: ignore[assignment]


async def test_a_call_does_not_fail_because_a_part_of_the_guard_does(
    bench: Bench, both: Both, caplog: pytest.LogCaptureFixture
) -> None:
    bench.fake.play([SERVER_ERROR])
    guard = bench.guard(journal=Broken())
    assert await both.text(both.client(bench.fake, guard))
    health = guard.health()
    assert health.faults == {"journal": 3}
    assert "journal failed 3 times" in health.warnings[-1]
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_call_belongs_to_the_span_that_is_current(bench: Bench, both: Both) -> None:
    tracer = TracerProvider().get_tracer("test")
    claude = both.client(bench.fake, bench.guard(), open_telemetry=False)
    with tracer.start_as_current_span("step") as span:
        await both.create(claude)
    context = span.get_span_context()
    assert bench.notes.call.traceparent == f"00-{context.trace_id:032x}-{context.span_id:016x}-03"
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_a_call_is_made_in_its_callers_scope(bench: Bench, both: Both) -> None:
    with relight.engine.scope.entered(tenant="acme", agent="refunds"):
        await both.create(both.client(bench.fake, bench.guard()))
    assert bench.notes.call.scope.agent == "refunds"


class Stuck(Breakers):
    """Breakers that cannot answer."""

    def of(self, name: str, policy: BreakerPolicy | None = None, *, region: str | None = None) -> Any:
        class Stuck:
            def permit(self, now_us: int) -> None:
                raise RuntimeError("secret")

        return Stuck()


async def test_a_call_does_not_fail_because_its_breaker_does(bench: Bench, both: Both) -> None:
    bench.fake.play([SERVER_ERROR])
    guard = bench.guard(GuardPolicy(jitter=0), breakers=Stuck(bench.recorder))
    assert await both.text(both.client(bench.fake, guard))
    assert guard.health().faults["breaker"] >= 2
