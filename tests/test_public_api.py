"""What `import relight` offers, with and without a loop."""

import inspect

import pytest

from relight.engine.runtime import Relight
from relight.engine.sync import SyncRelight

NEEDS_A_LOOP = {"worker", "working", "work"}
"""A worker's functions run in the loop that it is used in."""


def _parameters(method: object) -> list[tuple[str, object, object]]:
    assert callable(method)
    return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, member in vars(Relight).items()
        if not name.startswith("_") and callable(member) and name not in NEEDS_A_LOOP
    ),
)
def test_without_a_loop_every_method_takes_the_same(name: str) -> None:
    assert _parameters(getattr(SyncRelight, name)) == _parameters(getattr(Relight, name))


def test_the_surface_is_small_enough_to_read_in_one_sitting() -> None:
    import relight

    assert sorted(relight.__all__) == [
        "Ack",
        "BreakerPolicy",
        "BudgetExceeded",
        "Budgets",
        "CircuitOpen",
        "Content",
        "DeadlineExceeded",
        "Fallback",
        "FleetPolicy",
        "Guard",
        "GuardError",
        "GuardPolicy",
        "Limit",
        "Receipt",
        "Relight",
        "RelightError",
        "SyncRelight",
        "Task",
        "TaskFenced",
        "TaskGivenUp",
        "deadline",
        "guarded",
        "open",
        "open_sync",
        "problem_handler",
        "problem_response",
        "waiting_for_capacity",
    ]
