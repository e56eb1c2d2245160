"""How workers ask for tasks and are offered some, over core NATS: `work.<queue>`, answered when there is one."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from nats.aio.msg import Msg
from pydantic import BaseModel, ConfigDict, Field

from relight.events.subjects import token
from relight.events.values import Count, Key, Name

WORK = "work"
FENCED = "fenced"
"""`fenced.<worker>`: tasks of a worker's were released, which it is told at once."""
WAIT_S = 5.0
"""How long a worker waits for an answer, and a dispatcher may take for it."""


class Asking(BaseModel):
    """A worker takes so many tasks of a queue, of one tenant or of all."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    worker: Key
    region: Name
    queue: Key
    slots: Annotated[int, Field(ge=1, le=1_000)]
    wait_s: Annotated[float, Field(gt=0, le=60)] = WAIT_S
    tenant: Name | None = None


class Offer(BaseModel):
    """A task that waits for an owner; whoever claims it by compare-and-set has it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tenant: Name
    task: Key
    seq: Count


class Offers(BaseModel):
    """The answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    offers: tuple[Offer, ...]


class Release(BaseModel):
    """What a worker is told that it has no longer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tenant: Name
    task: Key
    epoch: Count


def work_subject(queue: str) -> str:
    return f"{WORK}.{token(queue)}"


def fenced_subject(worker: str) -> str:
    return f"{FENCED}.{token(worker)}"


@dataclass(slots=True)
class Waiter:
    """A worker that waits for an answer to its latest question."""

    asking: Asking
    message: Msg
    until_s: float
    offers: list[Offer] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.offers) >= self.asking.slots


class Waiters:
    """By queue, whoever has waited longest first; one question of each worker at a time."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, dict[str, Waiter]] = defaultdict(dict)

    def add(self, asking: Asking, message: Msg, now_s: float) -> None:
        waiting = self._queues[asking.queue]
        waiting.pop(asking.worker, None)
        waiting[asking.worker] = Waiter(asking, message, now_s + asking.wait_s)

    def queues(self) -> list[str]:
        return list(self._queues)

    def of(self, queue: str, now_s: float) -> Iterator[Waiter]:
        """Those that still wait."""
        waiting = self._queues.get(queue, {})
        for worker, waiter in list(waiting.items()):
            if waiter.until_s <= now_s:
                del waiting[worker]
            else:
                yield waiter
        if not waiting:
            self._queues.pop(queue, None)

    def forget(self, now_s: float) -> None:
        """Those that wait no longer."""
        for queue in self.queues():
            list(self.of(queue, now_s))

    def answered(self, waiter: Waiter) -> None:
        waiting = self._queues.get(waiter.asking.queue, {})
        if waiting.get(waiter.asking.worker) is waiter:
            del waiting[waiter.asking.worker]
