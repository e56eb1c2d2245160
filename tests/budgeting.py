"""What tests of budgets share: a model and its price, a call that is checked, and one that is refused."""

from dataclasses import dataclass

import pytest

from relight.engine.errors import BudgetExceeded
from relight.engine.guard.budgets.budgets import Budgets, Held
from relight.engine.guard.facts import Dependency, Usage
from relight.engine.scope import Scope

SECOND_US = 1_000_000
NOON_US = 1_767_268_800 * SECOND_US
OPUS = Dependency("anthropic", "global", "claude-opus-4-8")
REFUNDS = Scope(agent="refunds")


@dataclass
class Prices:
    """10 micro-dollars a token of the models it knows."""

    known: tuple[str, ...] = (OPUS.model,)

    def cost_microusd(self, model: str, usage: Usage, provider: str, region: str) -> int | None:
        return 10 * ((usage.input_tokens or 0) + (usage.output_tokens or 0)) if model in self.known else None


def check(budgets: Budgets, scope: Scope = REFUNDS, *, now_us: int = NOON_US, max_tokens: int = 100) -> Held:
    body = {"model": OPUS.model, "max_tokens": max_tokens, "messages": []}
    held = budgets.check(scope, now_us, tenant="acme", dependency=OPUS, body=body, decision="d-1")
    assert held is not None
    return held


def refused(
    budgets: Budgets, scope: Scope = REFUNDS, *, now_us: int = NOON_US, max_tokens: int = 100
) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as raised:
        check(budgets, scope, now_us=now_us, max_tokens=max_tokens)
    return raised.value
