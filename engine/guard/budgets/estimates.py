"""How much a call may take before anybody knows: what budgets hold back for it."""

from collections.abc import Mapping
from typing import Any, Protocol

from relight.engine.guard.facts import Usage
from relight.engine.policies.budget import Amounts

CHARACTERS_A_TOKEN = 3
"""English has four, code about three; what is not ASCII is taken for a token a character."""
ATTACHMENT_TOKENS = 1_600
"""An image's, at the size to which larger ones are scaled; other attachments are taken for one, being no text."""
_SKIPPED = frozenset(("type", "signature"))
"""What no model reads as text."""


class PriceList(Protocol):
    """What an answer costs; None: the price of that model is not known."""

    def cost_microusd(self, model: str, usage: Usage, provider: str, region: str) -> int | None: ...


def estimated(body: Mapping[str, Any] | None) -> Usage:
    """What the prompt may count, and all of `max_tokens`; without those nothing is generated, and nothing held."""
    most = None if body is None else body.get("max_tokens")
    if body is None or not isinstance(most, int):
        return Usage(0, 0)
    return Usage(sum(_tokens(body.get(part)) for part in ("system", "messages", "tools")), most)


def tokens_of(usage: Usage) -> int:
    """All that passed through a model, the cached ones too."""
    return (
        (usage.input_tokens or 0)
        + (usage.output_tokens or 0)
        + (usage.cache_write_tokens or 0)
        + (usage.cache_read_tokens or 0)
    )


def capped(usage: Usage, tokens: int | None) -> Usage:
    """At most so many, of which the answer has to make do with what the prompt leaves."""
    if tokens is None:
        return usage
    prompt = min(usage.input_tokens or 0, tokens)
    return Usage(prompt, min(usage.output_tokens or 0, tokens - prompt))


def priced(usage: Usage, cost_microusd: int | None, *, attempts: int = 0) -> Amounts:
    return Amounts(tokens_of(usage), cost_microusd or 0, attempts)


def _tokens(value: object) -> int:
    if isinstance(value, str):
        return len(value) // CHARACTERS_A_TOKEN + 1 if value.isascii() else len(value)
    if isinstance(value, Mapping):
        if value.get("type") == "base64":
            return ATTACHMENT_TOKENS
        return sum(_tokens(item) for name, item in value.items() if name not in _SKIPPED)
    if isinstance(value, list | tuple):
        return sum(map(_tokens, value))
    return 0
