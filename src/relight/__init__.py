"""Relight: an event-sourced resilience engine for fleets of AI agents.

    async with relight.open(region="eu") as r:
        with r.scope(tenant="acme", agent="refunds", task="t-42"):
            async with r.decision("refund", context={"order": 991}) as d:
                d.take("approve", reasoning="within policy", confidence=0.8)
            rows = await r.query("decisions.audit", after=d.receipt, decision=d.id)

`open_sync` is the same for code without an event loop. Settings are `RELIGHT_*` variables or keywords of `open`.
"""

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING

from relight.engine.app.opening import open_relight, open_relight_sync
from relight.engine.errors import BudgetExceeded, CircuitOpen, DeadlineExceeded, GuardError, RelightError
from relight.engine.guard.budgets import Budgets
from relight.engine.guard.capacity import waiting_for_capacity
from relight.engine.guard.deadlines import deadline
from relight.engine.guard.policy import GuardPolicy
from relight.engine.policies.budget import Limit
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.runtime import Relight
from relight.engine.settings import Settings
from relight.engine.sync import SyncRelight
from relight.events.values import Content

if TYPE_CHECKING:
    from relight.engine.guard.fallback import Fallback
    from relight.engine.guard.guard import Guard
    from relight.engine.guard.guarded import guarded
    from relight.engine.http.guarded import problem_handler, problem_response

__all__ = [
    "Ack",
    "BudgetExceeded",
    "Budgets",
    "CircuitOpen",
    "Content",
    "DeadlineExceeded",
    "Fallback",
    "Guard",
    "GuardError",
    "GuardPolicy",
    "Limit",
    "Receipt",
    "Relight",
    "RelightError",
    "SyncRelight",
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
    "Fallback": "relight.engine.guard.fallback",
    "Guard": "relight.engine.guard.guard",
    "guarded": "relight.engine.guard.guarded",
    "problem_handler": "relight.engine.http.guarded",
    "problem_response": "relight.engine.http.guarded",
}
"""What needs the anthropic SDK, which takes a second to import, or a web framework: on first use."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_LATER[name]), name)
    globals()[name] = found
    return found


def open(**settings: object) -> AbstractAsyncContextManager[Relight]:
    """Records, decides and queries until the `with` ends.

    Servers are yours (`RELIGHT_NATS_URL`, `RELIGHT_DATABASE_URL`), those of a running `relight up`, or are started for
    the while. Keywords override the `RELIGHT_*` variables. Raises `SettingsError`, `Unreachable`,
    `EmbeddedServerError`, `SpoolUnusable`.
    """
    return open_relight(Settings.from_environment().overridden(settings))


def open_sync(**settings: object) -> AbstractContextManager[SyncRelight]:
    """`open` for code without an event loop."""
    return open_relight_sync(Settings.from_environment().overridden(settings))
