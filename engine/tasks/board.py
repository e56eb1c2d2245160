"""What a dispatcher knows of the tasks that are not finished: who waits, who is offered, who holds what since when."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from relight.engine.policies.dispatching import Pending, Pool
from relight.engine.policies.reassignment import Claimant
from relight.events.envelope import Recorded
from relight.events.tasks import TaskRuling, TaskStatus

OFFER_S = 3.0
"""How long a worker has to claim what it was offered; then others are offered it, too."""

Key = tuple[str, str]
"""Tenant and task."""


@dataclass(slots=True)
class Held:
    """A task that somebody owns; times are in seconds in which the dispatcher could hear of its owner."""

    queue: str
    who: Claimant
    epoch: int
    rev: int
    since_s: float
    unheld_since_s: float | None = None
    """Since when its owner says that it does not hold it."""
    releasing: bool = False


@dataclass(frozen=True, slots=True)
class Offered:
    pending: Pending
    rev: int
    until_s: float


class Board:
    """Folds rulings in any order; a finished task leaves nothing behind."""

    def __init__(self, weights: Mapping[str, int] | None = None) -> None:
        self._weights = weights
        self.clear()

    def clear(self) -> None:
        """All will be folded again."""
        self.pool = Pool(self._weights)
        self.held: dict[Key, Held] = {}
        self.by_owner: defaultdict[str, set[Key]] = defaultdict(set)
        self._revs: dict[Key, int] = {}
        self._offered: dict[Key, Offered] = {}

    def fold(self, event: Recorded[TaskRuling], seq: int, now_s: float) -> None:
        """A ruling that was read from the stream."""
        key, state, rev = (event.tenant, event.data.task), event.data.state, event.rev or 0
        if rev <= self._revs.get(key, 0) or state is None:
            return  # it was lost and put back, or says nothing to go by
        self._forget(key)
        match state.status:
            case TaskStatus.PENDING:
                self._revs[key] = rev
                due_us = 0 if state.not_before is None else int(state.not_before.timestamp() * 1_000_000)
                due_us = due_us or int(state.submitted_at.timestamp() * 1_000_000)
                self.pool.put(Pending(state.queue, event.tenant, event.data.task, state.priority, due_us, seq))
            case TaskStatus.ASSIGNED:
                if state.owner is None or state.owner_region is None or state.epoch is None:
                    return
                self._revs[key] = rev
                who = Claimant(state.owner, state.owner_region)
                self.held[key] = Held(state.queue, who, state.epoch, rev, now_s)
                self.by_owner[state.owner].add(key)
            case TaskStatus.COMPLETED | TaskStatus.FAILED:
                pass

    def offer(self, queue: str, now_us: int, now_s: float, *, tenant: str | None = None) -> Pending | None:
        """The next task that is due; until it is claimed or the offer is over nobody else is offered it."""
        pending = self.pool.take(queue, now_us, tenant=tenant)
        if pending is not None:
            self._offered[pending.key] = Offered(pending, self._revs[pending.key], now_s + OFFER_S)
        return pending

    def withdraw(self, now_s: float) -> None:
        """What was offered and not claimed waits again."""
        for key, offered in list(self._offered.items()):
            if offered.until_s > now_s:
                return  # offers are made one after the other, and all hold for as long
            del self._offered[key]
            self.pool.put(offered.pending)

    def heard(self, owner: str, holds: Mapping[Key, int], now_s: float) -> None:
        """The owner says which tasks it holds, under which epochs."""
        for key in self.by_owner.get(owner, ()):
            held = self.held[key]
            if holds.get(key) == held.epoch:
                held.unheld_since_s = None
            elif held.unheld_since_s is None:
                held.unheld_since_s = now_s

    def owners(self) -> list[tuple[str, list[tuple[Key, Held]]]]:
        """Everybody who owns tasks, and which."""
        return [(owner, [(key, self.held[key]) for key in keys]) for owner, keys in list(self.by_owner.items())]

    def count(self, queue: str) -> int:
        """Tasks of the queue that are not finished."""
        return (
            self.pool.waiting(queue)
            + sum(held.queue == queue for held in list(self.held.values()))
            + sum(offered.pending.queue == queue for offered in list(self._offered.values()))
        )

    def held_in(self, region: str) -> int:
        """Tasks that workers of the region own."""
        return sum(held.who.region == region for held in list(self.held.values()))

    def keys(self) -> list[Key]:
        """Tasks that are known."""
        return list(self._revs)

    def _forget(self, key: Key) -> None:
        self._revs.pop(key, None)
        self._offered.pop(key, None)
        self.pool.drop(key)
        if (held := self.held.pop(key, None)) is not None:
            keys = self.by_owner[held.who.owner]
            keys.discard(key)
            if not keys:
                del self.by_owner[held.who.owner]
