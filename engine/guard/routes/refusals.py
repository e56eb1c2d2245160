"""Calls that were not made, as errors with the members of a problem document (RFC 9457)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from relight.engine.errors import BudgetExceeded, CircuitOpen
from relight.engine.guard.facts import Dependency
from relight.engine.policies.budget import Amounts, Spending
from relight.engine.problems import document

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = 1_000_000
_WORDS = {"tokens": "tokens", "cost_microusd": "micro-dollars", "attempts": "attempts"}
UNNAMED_WAIT_S = 1.0
"""Where nobody could say when to come back."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A route that gave no answer: refused by its breaker until then, failed so, or not for this request."""

    dependency: Dependency
    refused: str | None = None
    retry_at_us: int | None = None
    failed: str | None = None
    attempts: int = 0
    skipped: str | None = None

    def __str__(self) -> str:
        if self.refused is not None:
            until = "" if self.retry_at_us is None else f" until {_clock(self.retry_at_us)}"
            return f"{self.dependency.name} is refused by its breaker{until} ({self.refused})"
        if self.failed is not None:
            times = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
            return f"{self.dependency.name} failed with {self.failed} ({times})"
        return f"{self.dependency.name} was not asked ({self.skipped})"

    def member(self) -> dict[str, object]:
        """As it stands in a problem."""
        found: dict[str, object] = {"dependency": self.dependency.name}
        if self.refused is not None:
            found |= {"refused": self.refused}
            if self.retry_at_us is not None:
                found |= {"retry_at": stamp(self.retry_at_us)}
        elif self.failed is not None:
            found |= {"failed": self.failed, "attempts": self.attempts}
        else:
            found |= {"skipped": self.skipped}
        return found


def circuit_open(tried: Sequence[Tried], *, now_us: int, decision: str | None = None) -> CircuitOpen:
    """Nobody takes this call; to come back when the first of the breakers lets calls pass."""
    due_us = [route.retry_at_us for route in tried if route.retry_at_us is not None]
    retry_at_us = max(min(due_us, default=now_us + round(UNNAMED_WAIT_S * _US)), now_us)
    return refused_until(
        f"no dependency takes this call now: {'; '.join(map(str, tried))}",
        retry_at_us=retry_at_us,
        now_us=now_us,
        decision=decision,
        members={"routes": [route.member() for route in tried]},
    )


def refused_until(
    what: str, *, retry_at_us: int, now_us: int, decision: str | None = None, members: Mapping[str, object]
) -> CircuitOpen:
    """`CircuitOpen` that says so, of anything that a breaker guards."""
    after_s = max(0.0, (retry_at_us - now_us) / _US)
    detail = f"{what}; come back in {after_s:.1f} s, or allow waiting: relight.waiting_for_capacity(seconds)"
    problem = {
        **document("circuit-open", detail, instance=instance_of(decision)),
        "retry_after_s": round(after_s, 3),
        "retry_at": stamp(retry_at_us),
        **members,
    }
    return CircuitOpen(detail, problem=problem, retry_at=moment(retry_at_us))


def over_budget(
    count: Spending, kind: str, wanted: Amounts, *, now_us: int, decision: str | None = None
) -> BudgetExceeded:
    """A call wants more of `kind` than a count has left; to come back when that fits, if waiting helps."""
    limit, most = count.limit, count.limit.most(kind)
    used, reserved, asked = (getattr(found, kind) for found in (count.used(now_us), count.reserved, wanted))
    whose = limit.whose(count.key)
    what = f"{whose}: {used:,} of {most:,} {_WORDS[kind]}{f' per {limit.per.value}' if limit.per else ''} are used"
    if reserved:
        what += f" and {reserved:,} held by calls at hand"
    if kind != "attempts":
        what += f", and this call may take {asked:,}"
    when: dict[str, object] = {}
    retry_at_us = count.free_at_us(wanted, kind, now_us)
    if retry_at_us is None:
        detail = f"{what}; raise the limit to go on"
    else:
        after_s = max(0.0, (retry_at_us - now_us) / _US)
        detail = f"{what}; come back in {after_s:.1f} s, or raise the limit"
        when = {"retry_after_s": round(after_s, 3), "retry_at": stamp(retry_at_us)}
    problem = {
        **document("budget-exceeded", detail, instance=instance_of(decision)),
        **when,
        "limit": limit.model_dump(mode="json", exclude_none=True),
        "whose": whose,
        "kind": kind,
        "used": used,
        "reserved": reserved,
        "asked": asked,
    }
    return BudgetExceeded(detail, problem=problem)


def instance_of(decision: str | None) -> str | None:
    """What a problem names this occurrence by; the decision stands after the last colon."""
    return None if decision is None else f"urn:relight:decision:{decision}"


def moment(unix_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=unix_us)


def stamp(unix_us: int) -> str:
    """RFC 3339, to the millisecond."""
    return moment(unix_us).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clock(unix_us: int) -> str:
    return f"{moment(unix_us):%H:%M:%S}Z"
