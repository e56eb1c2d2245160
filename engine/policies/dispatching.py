"""Which task is offered next: pure, for it holds no clock, and the same calls in the same order choose the same tasks.

Tenants take turns, so that none starves however many tasks, or however urgent ones, another has: in a turn as many
tasks go as the tenant's weight says (weighted round robin; Katevenis et al., 1991). Within a tenant the highest
priority goes first, then what was due first. A tenant without a task that is due has no turn, and saves none up.
"""

import heapq
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

STALE = 1_000
"""So many forgotten entries a heap may hold beside as many live ones."""


class Pending(NamedTuple):
    """A task that waits for an owner; times are microseconds since 1970."""

    queue: str
    tenant: str
    task: str
    priority: int
    due_us: int
    seq: int
    """where its last ruling stands"""

    @property
    def key(self) -> tuple[str, str]:
        return self.tenant, self.task


class Pool:
    """Pending tasks of all queues. Every operation costs at most the logarithm of their number."""

    def __init__(self, weights: Mapping[str, int] | None = None) -> None:
        """`weights`: tasks in one turn, by tenant; 1 where none is given."""
        self._weights = dict(weights or {})
        self._held: dict[tuple[str, str], Pending] = {}
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Pending]:
        return iter(self._held.values())

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._held

    def waiting(self, queue: str) -> int:
        """Tasks of that queue, due or not."""
        found = self._queues.get(queue)
        return found.count if found else 0

    def queues(self) -> tuple[str, ...]:
        """Those that have tasks."""
        return tuple(self._queues)

    def put(self, pending: Pending) -> None:
        """In place of what was known of the same task."""
        self.drop(pending.key)
        self._held[pending.key] = pending
        queue = self._queues.get(pending.queue)
        if queue is None:
            queue = self._queues[pending.queue] = _Queue(self._held, self._weights)
        queue.add(pending)

    def drop(self, key: tuple[str, str]) -> Pending | None:
        """It waits no longer."""
        pending = self._held.pop(key, None)
        if pending is not None:
            queue = self._queues[pending.queue]
            queue.forget()
            if queue.count == 0:
                del self._queues[pending.queue]
        return pending

    def take(self, queue: str, now_us: int, *, tenant: str | None = None) -> Pending | None:
        """The next task that is due, of that tenant or of whoever's turn it is; it is in the pool no longer."""
        found = self._queues.get(queue)
        if found is None:
            return None
        found.ripen(now_us)
        pending = found.next(tenant)
        if pending is not None:
            self.drop(pending.key)
        return pending

    def next_due_us(self, queue: str, now_us: int) -> int | None:
        """When the next of that queue is due; `now_us` where one is."""
        found = self._queues.get(queue)
        if found is None:
            return None
        found.ripen(now_us)
        return now_us if found.any_ready() else found.next_due_us()


class _Queue:
    """What is not due yet by time, what is by tenant. Heaps keep what was dropped until it comes up, or is too much."""

    def __init__(self, held: Mapping[tuple[str, str], Pending], weights: Mapping[str, int]) -> None:
        self._held = held
        self._weights = weights
        self._later: list[tuple[int, int, Pending]] = []
        self._ready: dict[str, list[tuple[int, int, int, Pending]]] = {}
        self._entries = 0
        self._turns: deque[str] = deque()
        self._has_turn: set[str] = set()
        self._left = 0
        """Tasks that go in the turn of the first of `_turns`."""
        self.count = 0

    def add(self, pending: Pending) -> None:
        self.count += 1
        heapq.heappush(self._later, (pending.due_us, pending.seq, pending))

    def forget(self) -> None:
        self.count -= 1
        if len(self._later) > 2 * self.count + STALE:
            self._later = [entry for entry in self._later if self._is_live(entry[-1])]
            heapq.heapify(self._later)
        if self._entries > 2 * self.count + STALE:
            for tenant, heap in self._ready.items():
                self._ready[tenant] = [entry for entry in heap if self._is_live(entry[-1])]
                heapq.heapify(self._ready[tenant])
            self._entries = sum(map(len, self._ready.values()))

    def ripen(self, now_us: int) -> None:
        """What is due is ready from here on."""
        while self._later and (self._later[0][0] <= now_us or not self._is_live(self._later[0][-1])):
            due_us, seq, pending = heapq.heappop(self._later)
            if not self._is_live(pending):
                continue
            heap = self._ready.get(pending.tenant)
            if heap is None:
                heap = self._ready[pending.tenant] = []
            if pending.tenant not in self._has_turn:
                self._has_turn.add(pending.tenant)
                self._turns.append(pending.tenant)
            heapq.heappush(heap, (-pending.priority, due_us, seq, pending))
            self._entries += 1

    def next(self, tenant: str | None) -> Pending | None:
        if tenant is not None:
            return self._first(tenant)
        while self._turns:
            whose = self._turns[0]
            if (pending := self._first(whose)) is None:
                self._has_turn.discard(self._turns.popleft())
                self._left = 0
                continue
            self._left = (self._left or max(1, self._weights.get(whose, 1))) - 1
            if self._left == 0:
                self._turns.rotate(-1)
            return pending
        return None

    def any_ready(self) -> bool:
        return any(self._peek(tenant) is not None for tenant in list(self._ready))

    def next_due_us(self) -> int | None:
        return self._later[0][0] if self._later else None

    def _first(self, tenant: str) -> Pending | None:
        """Removes it; a tenant without any more has no turn."""
        pending = self._peek(tenant)
        if pending is not None:
            self._pop(self._ready[tenant])
        return pending

    def _peek(self, tenant: str) -> Pending | None:
        heap = self._ready.get(tenant)
        if heap is None:
            return None
        while heap and not self._is_live(heap[0][-1]):
            self._pop(heap)
        if not heap:
            del self._ready[tenant]
            return None
        return heap[0][-1]

    def _pop(self, heap: list[tuple[int, int, int, Pending]]) -> None:
        heapq.heappop(heap)
        self._entries -= 1

    def _is_live(self, pending: Pending) -> bool:
        return self._held.get(pending.key) is pending
