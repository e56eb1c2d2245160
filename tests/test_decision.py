"""A decision as it is recorded, and the scope that says whose it is: on a real server, read off the stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from stack import bodies, connected, failed, nats_server, on_stream, options

from relight.engine import scope
from relight.engine.decision import Decision
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.events.errors import InvalidEvent

Said = Callable[[], Awaitable[list[dict[str, Any]]]]


@pytest_asyncio.fixture
async def recording() -> AsyncIterator[tuple[Recorder, Said]]:
    """A recorder, and what it has said so far, without what it says of itself."""
    async with nats_server() as nats, connected(nats) as client, Recorder(options(nats, None)) as recorder:

        async def said() -> list[dict[str, Any]]:
            await recorder.record(failed(0)).reached(Ack.REPLICATED)
            found = [body for body in bodies(await on_stream(client)) if not body["type"].startswith("recorder.")]
            return found[:-1]

        yield recorder, said


async def test_leaving_normally_is_a_success_and_all_inside_is_caused_by_the_decision(
    recording: tuple[Recorder, Said],
) -> None:
    recorder, said = recording
    with scope.entered(tenant="acme", agent="refunds", task="t-42"):
        async with Decision(recorder, "refund", context={"order": 991}) as decision:
            decision.checkpoint("policy_checked", {"ok": True})
            decision.take("approve", reasoning="small", confidence=0.8)
            recorder.record(failed(7))
    begun, checkpoint, taken, inside, outcome = await said()
    assert begun["data"] == {
        "decision": decision.id,
        "decision_type": "refund",
        "agent": "refunds",
        "task": "t-42",
        "context": {"order": 991},
    }
    assert "causationid" not in begun
    assert "correlationid" not in begun
    for body in (checkpoint, taken, inside, outcome):
        assert (body["causationid"], body["correlationid"]) == (begun["id"], begun["id"])
    assert (taken["data"]["decision_taken"], taken["data"]["confidence"]) == ("approve", 0.8)
    assert outcome["data"]["outcome"] == "success"
    assert outcome["data"]["latency_ms"] >= 0
    assert decision.receipt is not None
    assert decision.receipt.id == outcome["id"]


async def test_an_exception_is_a_failure_and_goes_on(recording: tuple[Recorder, Said]) -> None:
    recorder, said = recording
    here = scope.current()
    with pytest.raises(ZeroDivisionError):
        async with Decision(recorder, "refund"):
            raise ZeroDivisionError
    assert scope.current() is here
    _, outcome = await said()
    assert (outcome["data"]["outcome"], outcome["data"]["error_class"]) == ("failure", "ZeroDivisionError")


async def test_a_cancellation_is_unknown(recording: tuple[Recorder, Said]) -> None:
    recorder, said = recording
    begun = asyncio.Event()

    async def decide() -> None:
        async with Decision(recorder, "refund"):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(decide())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    _, outcome = await said()
    assert (outcome["data"]["outcome"], outcome["data"]["error_class"]) == ("unknown", "CancelledError")


async def test_an_exception_whose_class_has_an_endless_name_is_recorded_all_the_same(
    recording: tuple[Recorder, Said],
) -> None:
    recorder, said = recording
    here = scope.current()
    endless = type("Ü" * 300, (Exception,), {})
    with pytest.raises(endless):
        with Decision(recorder, "refund"):
            raise endless
    assert scope.current() is here
    _, outcome = await said()
    assert outcome["data"]["error_class"] == "Ü" * 100


async def test_a_decision_within_a_decision_is_caused_by_it_and_correlates_with_the_outermost(
    recording: tuple[Recorder, Said],
) -> None:
    recorder, said = recording
    with scope.entered(correlation="run 1"), Decision(recorder, "outer"), Decision(recorder, "inner"):
        pass
    outer, inner, inner_outcome, outer_outcome = await said()
    assert inner["causationid"] == outer_outcome["causationid"] == outer["id"]
    assert inner_outcome["causationid"] == inner["id"]
    assert {body["correlationid"] for body in (outer, inner, inner_outcome, outer_outcome)} == {"run 1"}


async def test_nested_scopes_inherit_and_tasks_started_inside_do_too(recording: tuple[Recorder, Said]) -> None:
    recorder, said = recording

    async def work(n: int) -> None:
        with scope.entered(task=f"t{n}"):
            await asyncio.sleep(0)
            recorder.record(failed(n))
            assert scope.current().task == f"t{n}"

    with scope.entered(tenant="outer", correlation="c"):
        with scope.entered(tenant="inner"):
            assert scope.current() == scope.Scope(tenant="inner", correlation="c")
            await asyncio.gather(work(1), work(2))
            assert scope.current().task is None
        recorder.record(failed(3))
    recorder.record(failed(4))
    assert scope.current() == scope.Scope()
    found = await said()
    assert [(body["tenant"], body.get("correlationid")) for body in found] == [
        ("inner", "c"),
        ("inner", "c"),
        ("outer", "c"),
        ("acme", None),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("tenant", "a\x00b"), ("tenant", ""), ("tenant", "\ud800"), ("task", "x" * 201), ("causation", "no id")],
)
def test_a_scope_that_no_event_could_carry_is_refused_when_it_is_entered(name: str, value: str) -> None:
    """Found: a tenant with a lone surrogate ended the thread that writes the spool."""
    with pytest.raises(InvalidEvent, match=name), scope.entered(**{name: value}):
        pass
    assert scope.current() == scope.Scope()
