"""Relight: an event-sourced resilience engine for fleets of AI agents.

    async with relight.open(region="eu") as r:
        with r.scope(tenant="acme", agent="refunds", task="t-42"):
            async with r.decision("refund", context={"order": 991}) as d:
                d.take("approve", reasoning="within policy", confidence=0.8)
            rows = await r.query("decisions.audit", after=d.receipt, decision=d.id)

`open_sync` is the same for code without an event loop. Settings are `RELIGHT_*` variables or keywords of `open`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from relight.engine.errors import (
        BudgetExceeded,
        CircuitOpen,
        DeadlineExceeded,
        GuardError,
        RelightError,
        TaskFenced,
        TaskGivenUp,
    )
    from relight.engine.guard.budgets.budgets import Budgets
    from relight.engine.guard.calls.deadlines import deadline
    from relight.engine.guard.guard import Guard
    from relight.engine.guard.guarded import guarded
    from relight.engine.guard.policy import GuardPolicy
    from relight.engine.guard.routes.capacity import waiting_for_capacity
    from relight.engine.guard.routes.fallback import Fallback
    from relight.engine.http.guarded import problem_handler, problem_response
    from relight.engine.policies.breaker import BreakerPolicy
    from relight.engine.policies.budget import Limit
    from relight.engine.policies.fleet_breaker import FleetPolicy
    from relight.engine.recorder.receipts import Ack, Receipt
    from relight.engine.runtime import Relight
    from relight.engine.sync import SyncRelight
    from relight.engine.tasks.task import Task
    from relight.events.values import Content

__all__ = [
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
__version__ = "0.1.0"

_LATER = {
    "Ack": "relight.engine.recorder.receipts",
    "BreakerPolicy": "relight.engine.policies.breaker",
    "BudgetExceeded": "relight.engine.errors",
    "Budgets": "relight.engine.guard.budgets.budgets",
    "CircuitOpen": "relight.engine.errors",
    "Content": "relight.events.values",
    "DeadlineExceeded": "relight.engine.errors",
    "Fallback": "relight.engine.guard.routes.fallback",
    "FleetPolicy": "relight.engine.policies.fleet_breaker",
    "Guard": "relight.engine.guard.guard",
    "GuardError": "relight.engine.errors",
    "GuardPolicy": "relight.engine.guard.policy",
    "Limit": "relight.engine.policies.budget",
    "Receipt": "relight.engine.recorder.receipts",
    "Relight": "relight.engine.runtime",
    "RelightError": "relight.engine.errors",
    "SyncRelight": "relight.engine.sync",
    "Task": "relight.engine.tasks.task",
    "TaskFenced": "relight.engine.errors",
    "TaskGivenUp": "relight.engine.errors",
    "deadline": "relight.engine.guard.calls.deadlines",
    "guarded": "relight.engine.guard.guarded",
    "problem_handler": "relight.engine.http.guarded",
    "problem_response": "relight.engine.http.guarded",
    "waiting_for_capacity": "relight.engine.guard.routes.capacity",
}
"""Imported on first use: any module of ours imports this one first, and all of these together take over a second."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_LATER[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def open(**settings: object) -> "AbstractAsyncContextManager[Relight]":
    """Records, decides and queries until the `with` ends.

    Servers are yours (`RELIGHT_NATS_URL`, `RELIGHT_DATABASE_URL`), those of a running `relight up`, or are started for
    the while. Keywords override the `RELIGHT_*` variables. Raises `SettingsError`, `Unreachable`,
    `EmbeddedServerError`, `SpoolUnusable`.
    """
    from relight.engine.app.opening import open_relight
    from relight.engine.settings import Settings

    return open_relight(Settings.from_environment().overridden(settings))


def open_sync(**settings: object) -> "AbstractContextManager[SyncRelight]":
    """`open` for code without an event loop."""
    from relight.engine.app.opening import open_relight_sync
    from relight.engine.settings import Settings

    return open_relight_sync(Settings.from_environment().overridden(settings))
