"""Budgets of a process's calls: checked before a call, held for it while it runs, settled by what it took."""

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relight.engine.guard.budgets.estimates import PriceList, capped, estimated, priced
from relight.engine.guard.budgets.limits import load_limits
from relight.engine.guard.facts import Dependency, Usage
from relight.engine.guard.routes.refusals import over_budget
from relight.engine.policies.budget import Amounts, Limit, Spending
from relight.engine.scope import Scope

MAX_COUNTS = 50_000
"""Kept at the same time; where each task has its limit, there is one for each task."""
MAX_SCOPES = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """How one count stands."""

    limit: Limit
    whose: str
    used: Amounts
    reserved: Amounts


class Budgets:
    """Limits on what calls take, for any number of threads and tasks; one for each process.

    A call holds its prompt's estimate and `max_tokens` until it is settled, so calls at the same time cannot overrun a
    limit together; a limit is exceeded only by what calls take beyond their estimate. What costs or takes nobody knows
    how much counts as nothing, and is counted.
    """

    def __init__(self, limits: Sequence[Limit], *, prices: PriceList | None = None) -> None:
        self.limits = tuple(limits)
        self.prices = prices
        self.unpriced = 0
        """Attempts that cost nobody knows how much, of those under a limit on cost."""
        self.uncounted = 0
        """Answers that did not say what they took, of those under a limit on tokens or cost."""
        self.forgotten = 0
        """Counts that had to go for want of room; such a limit begins anew."""
        self.begun = 0
        """Counts that were begun."""
        self._followed = False
        self._counts: dict[tuple[int, tuple[str, ...]], Spending] = {}
        self._scopes: dict[tuple[str, str | None, str | None], tuple[Spending, ...]] = {}
        self._tenants: dict[tuple[int, tuple[str, ...]], set[str]] = {}
        self._lock = threading.Lock()
        self._later: deque[tuple[Held, Amounts, int | None]] = deque()

    @classmethod
    def load(cls, path: Path | str, *, prices: PriceList | None = None) -> "Budgets":
        """With the limits of a TOML file. Raises `SettingsError`."""
        return cls(load_limits(Path(path)), prices=prices)

    def check(
        self,
        scope: Scope,
        now_us: int,
        *,
        tenant: str,
        dependency: Dependency,
        body: Mapping[str, Any] | None,
        decision: str | None = None,
    ) -> "Held | None":
        """Before a call: holds what it may take and its first attempt; None where nothing limits it.

        `tenant`: the recorder's, where the scope names none. Raises `BudgetExceeded`, and then nothing is held.
        """
        if not self.limits:
            return None
        counts = self._of(scope.tenant or tenant, scope.agent, scope.task, now_us)
        if not counts:
            return None
        usage = estimated(body) if any(_by_usage(count.limit) for count in counts) else _NO_USAGE
        amounts = tuple(self._estimate(count.limit, dependency, usage) for count in counts)
        held = Held(self, counts, amounts, decision, generates=usage is not _NO_USAGE and bool(usage.output_tokens))
        held.take(now_us)
        return held

    def standings(self, now_us: int) -> list[Standing]:
        """Every count, for whoever wants to see them."""
        with self._counting():
            return [
                Standing(count.limit, count.limit.whose(count.key), count.used(now_us), count.reserved)
                for count in self._counts.values()
            ]

    def follow(self) -> None:
        """What other processes spend will be told: see `SpentElsewhere`."""
        with self._lock:
            self._followed = True
            for count in self._counts.values():
                count.follow()

    def followed(self) -> list[tuple[Spending, frozenset[str]]]:
        """Each count with the tenants seen in it."""
        with self._lock:
            return [(count, frozenset(self._tenants[name])) for name, count in self._counts.items()]

    def told(self, count: Spending, everybody: Amounts, until_us: int) -> None:
        """What everybody spent in a count until then."""
        with self._lock:
            count.known_until(everybody, until_us)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        with self._lock:
            self._catch_up()
            yield

    def _soon(self, held: "Held", amounts: Amounts, now_us: int | None) -> None:
        """At once where nobody counts, else before anybody counts again; `now_us` None: the call is over."""
        self._later.append((held, amounts, now_us))
        if self._lock.acquire(blocking=False):
            try:
                self._catch_up()
            finally:
                self._lock.release()

    def _catch_up(self) -> None:
        while self._later:
            held, amounts, now_us = self._later.popleft()
            if now_us is None:
                held._let_go(sent=amounts.attempts > 0)
            else:
                held._spend(amounts, now_us)

    def _of(self, tenant: str, agent: str | None, task: str | None, now_us: int) -> tuple[Spending, ...]:
        scope = (tenant, agent, task)
        found = self._scopes.get(scope)
        if found is None:
            with self._lock:
                if len(self._scopes) >= MAX_SCOPES:
                    self._scopes.clear()
                if len(self._counts) >= MAX_COUNTS:
                    self._make_room(now_us)
                found = self._scopes[scope] = tuple(self._find(scope))
        return found

    def _find(self, scope: tuple[str, str | None, str | None]) -> Iterator[Spending]:
        for i, limit in enumerate(self.limits):
            key = limit.key(*scope)
            if key is None:
                continue
            count = self._counts.get((i, key))
            if count is None:
                count = self._counts[i, key] = Spending(limit, key)
                self._tenants[i, key] = set()
                self.begun += 1
                if self._followed:
                    count.follow()
            self._tenants[i, key].add(scope[0])
            yield count

    def _make_room(self, now_us: int) -> None:
        """The idle ones go, and if that does not do, the oldest."""
        names = [name for name, count in self._counts.items() if count.idle(now_us)]
        if len(names) < MAX_COUNTS // 10:
            names = list(self._counts)[: MAX_COUNTS // 10]
            self.forgotten += len(names)
        for name in names:
            del self._counts[name], self._tenants[name]
        self._scopes.clear()

    def _estimate(self, limit: Limit, dependency: Dependency, usage: Usage) -> Amounts:
        """What is to be held under a limit."""
        if not _by_usage(limit):
            return _ATTEMPT
        held = capped(usage, limit.reserve_tokens)
        cost = None if limit.cost_microusd is None else self._cost(dependency, held)
        return priced(held, cost, attempts=1)

    def _cost(self, dependency: Dependency, usage: Usage) -> int | None:
        if self.prices is None:
            return None
        return self.prices.cost_microusd(dependency.model, usage, dependency.provider, dependency.region)


class Held:
    """What one call holds of its budgets, from `check` until `settle`: what it may take, and an attempt."""

    __slots__ = ("_amounts", "_at_us", "_budgets", "_counts", "_decision", "_generates", "_held")

    def __init__(
        self,
        budgets: Budgets,
        counts: tuple[Spending, ...],
        amounts: tuple[Amounts, ...],
        decision: str | None,
        *,
        generates: bool,
    ) -> None:
        self._budgets = budgets
        self._counts = counts
        self._amounts = amounts
        self._decision = decision
        self._generates = generates
        self._held = False
        self._at_us = 0

    def take(self, now_us: int) -> None:
        """Holds it all, or nothing and raises `BudgetExceeded`."""
        with self._budgets._counting():
            self._hold(now_us)

    def again(self, now_us: int) -> None:
        """Before each further attempt of the call; what it holds, it keeps.

        Raises `BudgetExceeded` where no attempt is left, or earlier ones took so much that another does not fit: then
        the call has had its last.
        """
        with self._budgets._counting():
            self._let_go(sent=True)
            self._hold(now_us)

    def spent(self, usage: Usage | None, dependency: Dependency, now_us: int) -> None:
        """What an attempt took that had an answer, or the beginning of one; None: it did not say.

        Neither this nor `settle` ever waits for a lock: the garbage collector may call them, anywhere.
        """
        budgets = self._budgets
        if not any(_by_usage(count.limit) for count in self._counts):
            return
        if usage is None:
            budgets.uncounted += self._generates
            return
        cost = None
        if any(count.limit.cost_microusd is not None for count in self._counts):
            cost = budgets._cost(dependency, usage)
            budgets.unpriced += cost is None
        budgets._soon(self, priced(usage, cost), now_us)

    def settle(self, *, sent: bool = True) -> None:
        """The call is over: what it holds is free again. As often as one likes.

        `sent`: the attempt that it holds was made.
        """
        self._budgets._soon(self, Amounts(attempts=sent), None)

    def _hold(self, now_us: int) -> None:
        for count, amounts in zip(self._counts, self._amounts, strict=True):
            kind = count.short(amounts, now_us)
            if kind is not None:
                raise over_budget(count, kind, amounts, now_us=now_us, decision=self._decision)
        for count, amounts in zip(self._counts, self._amounts, strict=True):
            count.reserve(amounts)
        self._held, self._at_us = True, now_us

    def _let_go(self, *, sent: bool) -> None:
        if not self._held:
            return
        self._held = False
        for count, amounts in zip(self._counts, self._amounts, strict=True):
            count.release(amounts)
            if sent:
                count.spend(_ATTEMPT, self._at_us)

    def _spend(self, amounts: Amounts, now_us: int) -> None:
        for count in self._counts:
            if _by_usage(count.limit):
                count.spend(amounts, now_us)


_ATTEMPT = Amounts(attempts=1)
_NO_USAGE = Usage(0, 0)


def _by_usage(limit: Limit) -> bool:
    return limit.tokens is not None or limit.cost_microusd is not None
