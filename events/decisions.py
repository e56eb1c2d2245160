"""Decisions: what an agent knew, what it chose, the checkpoints on the way, and how it came out."""

from decimal import Decimal
from enum import StrEnum
from typing import Any

from relight.events.base import Event
from relight.events.values import Content, Count, Fraction, JsonObject, Key, MicroUsd, Text, Time


class Outcome(StrEnum):
    """How a decision came out; `unknown` when the source cannot tell."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


class DecisionEvent(Event, entity="decision"):
    """What every event of a decision carries."""

    decision: Key


class DecisionOpening(DecisionEvent):
    """Who decides on what, knowing what."""

    decision_type: Key
    agent: Key | None = None
    task: Key | None = None
    context: JsonObject = {}


class DecisionBegun(DecisionOpening, type="decisions.begun"):
    """An agent is about to decide."""


class DecisionTaken(DecisionOpening, type="decisions.taken"):
    """An agent has decided; of a model call (`decision_type` agent_call), what was asked of whom."""

    decision_taken: Text | None = None
    reasoning: Text | None = None
    confidence: Fraction | None = None
    provider: Key | None = None
    model: Key | None = None
    request: Content | None = None


class DecisionCheckpointed(DecisionEvent, type="decisions.checkpointed"):
    """A step on the way: a rule checked, an attempt made, a milestone of a stream."""

    checkpoint_type: Key
    state_snapshot: JsonObject = {}
    content: Content | None = None


def _dollars_to_micro(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had `cost_usd`, a decimal as text or number; binary fractions of a dollar do not add up."""
    rest = {name: value for name, value in data.items() if name != "cost_usd"}
    cost = data.get("cost_usd")
    return {**rest, "cost_microusd": None if cost is None else round(Decimal(str(cost)) * 1_000_000)}


def _unchanged(data: dict[str, Any]) -> dict[str, Any]:
    """Version 2 lacked fields that may be absent."""
    return data


class DecisionOutcomeKnown(
    DecisionEvent, type="decisions.outcome_known", version=3, upcasts={1: _dollars_to_micro, 2: _unchanged}
):
    """How it came out, and of a model call what it took.

    `first_token_ms`: from taken to the first delta of a stream. `attributes` have OpenTelemetry's GenAI names.
    """

    outcome: Outcome
    error_class: Key | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cost_microusd: MicroUsd | None = None
    latency_ms: Count | None = None
    request_id: Key | None = None
    first_token_ms: Count | None = None
    attempts: Count | None = None
    attributes: JsonObject | None = None

    @property
    def written_version(self) -> int:
        told = (self.first_token_ms, self.attempts, self.attributes)
        return 2 if told == (None, None, None) else self.VERSION


class DecisionCallsCounted(Event, type="decisions.calls_counted", entity="site"):
    """How often one place in a program (`path:line`) called a model since then, through a guard or not."""

    site: Key
    guarded: bool
    calls: Count
    since: Time
