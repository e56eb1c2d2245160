"""Budgets: what was spent under a limit within its window, and whether more fits; pure, told every moment."""

from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from relight.events.values import Count, Key

EACH = "*"
NOBODY = ""
"""The key of calls that name no agent or task: where each has its limit, they share one."""
SLOTS = 60
"""A sliding window goes on by so many steps."""
_US = 1_000_000


class Per(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def us(self) -> int:
        return {Per.MINUTE: 60, Per.HOUR: 3_600, Per.DAY: 86_400}[self] * _US


class Window(StrEnum):
    SLIDING = "sliding"
    """In no stretch of that length is more spent, wherever it begins."""
    FIXED = "fixed"
    """From one full minute, hour or day (UTC) to the next: twice the limit may fall around its edge."""


class Amounts(NamedTuple):
    """What was spent, or may be: tokens read, written and cached; millionths of a US dollar; requests on the wire."""

    tokens: int = 0
    cost_microusd: int = 0
    attempts: int = 0

    def plus(self, other: "Amounts") -> "Amounts":
        return Amounts(
            self.tokens + other.tokens, self.cost_microusd + other.cost_microusd, self.attempts + other.attempts
        )

    def minus(self, other: "Amounts") -> "Amounts":
        return Amounts(
            self.tokens - other.tokens, self.cost_microusd - other.cost_microusd, self.attempts - other.attempts
        )


NOTHING = Amounts()


class Limit(BaseModel):
    """How much the calls of a tenant, an agent or for a task may spend together; per window, or in all.

    A name means that one, `*` each by itself, nothing all together; of several limits, each has to leave room.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Key | None = None
    agent: Key | None = None
    task: Key | None = None
    tokens: Count | None = None
    cost_microusd: Count | None = None
    attempts: Count | None = None
    per: Per | None = None
    window: Window = Window.SLIDING
    reserve_tokens: PositiveInt | None = Field(
        default=None, description="what a call at hand counts as; its prompt and max_tokens if not set"
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.tokens is self.cost_microusd is self.attempts is None:
            raise ValueError("a limit says how many tokens, cost_microusd or attempts; this one limits nothing")
        return self

    def key(self, tenant: str, agent: str | None, task: str | None) -> tuple[str, ...] | None:
        """Which count a call goes to; None where it does not concern it."""
        found: list[str] = []
        for wanted, said in ((self.tenant, tenant), (self.agent, agent), (self.task, task)):
            if wanted is None:
                continue
            if wanted not in (EACH, said):
                return None
            found.append(said or NOBODY)
        return tuple(found)

    def whose(self, key: Sequence[str]) -> str:
        """`agent refunds of tenant acme`, for a key of it."""
        said = [f"{part} {value}" if value else f"calls without {part}" for part, value in self.named(key).items()]
        return ", ".join(said) or "all calls"

    def named(self, key: Sequence[str]) -> dict[str, str]:
        """A key of it by `tenant`, `agent` and `task`, those that it tells apart."""
        parts = [name for name in ("tenant", "agent", "task") if getattr(self, name) is not None]
        return dict(zip(parts, key, strict=True))

    def most(self, kind: str) -> int | None:
        found: int | None = getattr(self, kind)
        return found


class Spending:
    """One count under one limit. Not for several threads at once.

    `reserved` is what calls at hand may spend: it counts as spent until they have.
    """

    __slots__ = (
        "_base",
        "_base_us",
        "_most",
        "_since",
        "_since_in_all",
        "_sliding",
        "_slots",
        "_spent",
        "_width_us",
        "_window_us",
        "key",
        "limit",
        "reserved",
    )

    def __init__(self, limit: Limit, key: tuple[str, ...] = ()) -> None:
        self.limit = limit
        self.key = key
        self._most = limit.tokens, limit.cost_microusd, limit.attempts
        self._window_us = 0 if limit.per is None else limit.per.us
        self._sliding = limit.window is Window.SLIDING
        self.reserved = NOTHING
        self._spent = NOTHING
        self._slots: deque[tuple[int, Amounts]] = deque()
        self._width_us = self._window_us // SLOTS if self._sliding else self._window_us
        self._base: Amounts | None = None
        self._base_us = 0
        self._since: deque[tuple[int, Amounts]] | None = None
        self._since_in_all = NOTHING

    def used(self, now_us: int) -> Amounts:
        """Within the window, by everybody as far as that is known."""
        self._forget(now_us)
        if self._base is None or self._base_us <= self.since_us(now_us):
            return self._spent
        return Amounts(*map(max, self._base.plus(self._since_in_all), self._spent))

    def short(self, asked: Amounts, now_us: int) -> str | None:
        """What there is not enough of: `tokens`, `cost_microusd` or `attempts`; None where all of it fits."""
        used = self.used(now_us)
        for kind, most, spent, held, more in zip(Amounts._fields, self._most, used, self.reserved, asked, strict=True):
            if more and most is not None and spent + held + more > most:
                return kind
        return None

    def free_at_us(self, asked: Amounts, kind: str, now_us: int) -> int | None:
        """When so much will fit at the latest, if nobody spends anything before; None: never."""
        most, wanted = self.limit.most(kind), getattr(asked, kind)
        if not self._window_us or most is None or wanted > most:
            return None
        if not self._sliding:
            return (now_us // self._window_us + 1) * self._window_us
        left = getattr(self.used(now_us).plus(self.reserved), kind) + wanted - most
        for slot, amounts in self._slots:
            left -= getattr(amounts, kind)
            if left <= 0:
                return self._gone_us(slot)
        return now_us + self._window_us

    def reserve(self, amounts: Amounts) -> None:
        self.reserved = self.reserved.plus(amounts)

    def release(self, amounts: Amounts) -> None:
        self.reserved = self.reserved.minus(amounts)

    def spend(self, amounts: Amounts, now_us: int) -> None:
        self._forget(now_us)
        self._spent = self._spent.plus(amounts)
        if self._width_us:
            _add(self._slots, now_us // self._width_us, amounts)
        if self._since is not None:
            self._since_in_all = self._since_in_all.plus(amounts)
            _add(self._since, now_us // _US, amounts)

    def follow(self) -> None:
        """Remembers by the second what is spent from now on, so that `known_until` can tell it from what it is told."""
        if self._since is None:
            self._since = deque()

    def known_until(self, everybody: Amounts, until_us: int) -> None:
        """What everybody, we too, had spent within the window until a full second; what we spend since comes on top."""
        self._base, self._base_us = everybody, until_us
        while self._since and self._since[0][0] < until_us // _US:
            _, amounts = self._since.popleft()
            self._since_in_all = self._since_in_all.minus(amounts)

    def since_us(self, now_us: int) -> int:
        """Where the window begins that now counts; 0 for what is counted in all."""
        if not self._window_us:
            return 0
        return now_us - self._window_us if self._sliding else now_us // self._window_us * self._window_us

    def idle(self, now_us: int) -> bool:
        """Whether nothing is lost with it."""
        self._forget(now_us)
        return self._window_us > 0 and not self._slots and self.reserved == NOTHING

    def _forget(self, now_us: int) -> None:
        while self._slots and self._gone_us(self._slots[0][0]) <= now_us:
            _, amounts = self._slots.popleft()
            self._spent = self._spent.minus(amounts)

    def _gone_us(self, slot: int) -> int:
        """When nothing that was spent within a slot is in the window any more."""
        end_us = (slot + 1) * self._width_us
        return end_us + self._window_us if self._sliding else end_us


def _add(steps: deque[tuple[int, Amounts]], step: int, amounts: Amounts) -> None:
    """To the last step where a clock was put back: they stay in order."""
    if steps and steps[-1][0] >= step:
        last, before = steps[-1]
        steps[-1] = (last, before.plus(amounts))
    else:
        steps.append((step, amounts))
