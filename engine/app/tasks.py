"""What `relight task` does."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from relight.engine.app.connections import query_pool
from relight.engine.app.opening import open_relight
from relight.engine.settings import Settings
from relight.engine.tables.queries import run
from relight.engine.tasks.rulings import known_state
from relight.engine.tasks.submitting import Submitted
from relight.events.tasks import TaskState, TaskSubmitted
from relight.projections.query import Row


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A task as its last ruling has it, which type that is, its revision, and what happened to its ownership."""

    ruling: str
    rev: int
    state: TaskState
    history: Sequence[Row]


async def submit(
    settings: Settings,
    queue: str,
    payload: bytes | JsonValue,
    *,
    task: str | None,
    priority: int,
    delay_s: float,
    max_attempts: int,
) -> Submitted:
    async with open_relight(settings) as relight:
        return await relight.submit(
            queue, payload, task=task, priority=priority, delay_s=delay_s, max_attempts=max_attempts
        )


async def list_tasks(settings: Settings, *, queue: str | None, status: str, limit: int) -> Sequence[Row]:
    """Out of the tables: those of one status, or those that wait in a queue."""
    async with query_pool(settings) as pool:
        if queue is None:
            return await run(pool, "tasks.by_status", tenant=settings.tenant, arguments={"status": status}, limit=limit)
        return await run(pool, "tasks.pending", tenant=settings.tenant, arguments={"queue": queue}, limit=limit)


async def show(settings: Settings, task: str) -> Shown:
    """Raises `TaskUnknown`."""
    async with open_relight(settings) as relight:
        tail = await relight.tail(TaskSubmitted, task)
        state = known_state(tail, settings.tenant, task)
        history = await relight.query("tasks.history", after=tail, task=task)
    assert tail.event is not None
    return Shown(ruling=tail.event.type, rev=tail.rev, state=state, history=history)
