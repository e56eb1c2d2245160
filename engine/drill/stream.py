"""What stands on the stream, by id, and what it tells of tasks and of failovers, with the times of its own."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import orjson
from nats.aio.client import Client

from relight.engine.log.reader import BEGINNING, Anchor, Message, Reader
from relight.events.catalog import decode
from relight.events.failover import FailoverRuling, FleetRuling
from relight.events.subjects import CONTROLS
from relight.events.tasks import TaskCompleted, TaskFailed, TaskRuling, TaskState

READ_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class TaskStep:
    """A ruling on a task; `at_s` is of the machine's monotonic clock."""

    at_s: float
    type: str
    rev: int
    state: TaskState


@dataclass(frozen=True, slots=True)
class Ruled:
    """Another ruling of the fleet's: on its routing, or on a region's isolation."""

    at_s: float
    type: str
    entity: str


@dataclass
class Stream:
    """`read` goes on from where it was."""

    ids: Counter[str] = field(default_factory=Counter)
    tasks: defaultdict[str, list[TaskStep]] = field(default_factory=lambda: defaultdict(list))
    ruled: list[Ruled] = field(default_factory=list)
    own: set[str] = field(default_factory=set)
    """Ids of what is not of the drill's publishers."""
    active: tuple[str, ...] = ()
    """Regions that are on, by the last ruling on the routing."""
    position: Anchor = BEGINNING
    _ahead_s: float = field(default_factory=lambda: time.time() - time.monotonic())

    async def read(self, client: Client) -> None:
        async with Reader(client, self.position) as reader:
            end = (await reader.state()).last_seq
            async for messages in reader.through(end, limit=READ_BATCH):
                for message in messages:
                    self._take(message)
                self.position = reader.position

    def _take(self, message: Message) -> None:
        document = orjson.loads(message.body)
        self.ids[document["id"]] += 1
        at_s = message.timestamp_ns / 1e9 - self._ahead_s
        if not message.subject.startswith(f"{CONTROLS}."):
            return
        event = decode(message.body)
        data = event.data
        self.own.add(event.id)
        if isinstance(data, TaskRuling):
            if data.state is not None:
                self.tasks[data.task].append(TaskStep(at_s, event.type, event.rev or 0, data.state))
        else:
            self.ruled.append(Ruled(at_s, event.type, event.subject))
            if isinstance(data, FleetRuling | FailoverRuling) and data.routing is not None:
                self.active = data.routing.active

    def held_by(self, region: str, at_s: float) -> list[str]:
        """Tasks whose owner was there at that moment."""
        found = []
        for task, steps in self.tasks.items():
            before = [step for step in steps if step.at_s <= at_s]
            if before and before[-1].state.owner_region == region and not finished(before[-1]):
                found.append(task)
        return found

    def completed_at(self, task: str) -> float | None:
        return next((step.at_s for step in self.tasks[task] if step.type == TaskCompleted.TYPE), None)

    def unfinished(self) -> list[str]:
        return [task for task, steps in self.tasks.items() if not finished(steps[-1])]

    def since(self, at_s: float, *types: str) -> list[Ruled]:
        return [one for one in self.ruled if one.at_s >= at_s and one.type in types]


def finished(step: TaskStep) -> bool:
    return step.type in (TaskCompleted.TYPE, TaskFailed.TYPE)
