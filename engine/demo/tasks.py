"""Tasks through the day: submitted, held under an epoch, finished by whoever holds them then."""

import orjson

from relight.engine import scope
from relight.engine.demo.stage import Happened, Holder, Stage, Storyline, Teller
from relight.engine.demo.world import CLAIMS, LETTERS, REFUNDS, REGIONS, Work
from relight.events.tasks import TaskAssigned, TaskCompleted, TaskFailed, TaskSubmitted
from relight.events.values import Content

TASKS = (
    (REFUNDS, 1001, "00:20", "05:10"),
    (REFUNDS, 1002, "03:05", "09:30"),
    (REFUNDS, 1003, "11:15", "19:00"),
    (REFUNDS, 1004, "12:40", "18:10"),
    (REFUNDS, 1005, "13:20", "21:30"),
    (REFUNDS, 1006, "19:30", "22:45"),
    (CLAIMS, 2001, "01:15", "08:00"),
    (CLAIMS, 2002, "10:00", "17:20"),
    (CLAIMS, 2003, "13:50", "20:15"),
    (CLAIMS, 2004, "22:10", None),
    (LETTERS, 3001, "02:30", "12:00"),
    (LETTERS, 3002, "09:45", "18:40"),
    (LETTERS, 3003, "21:00", None),
)
GIVEN_UP = 2003
"""This one fails in the end."""


def tasks() -> tuple[Teller, ...]:
    return tuple(_task(*task) for task in TASKS)


def _task(work: Work, number: int, submitted_at: str, finished_at: str | None) -> Teller:
    async def storyline(stage: Stage) -> Storyline:
        task = work.task(number)
        yield submitted_at
        payload = keep(stage, work.primary, work.tenant, {"task": task, "case": number})
        submitted = await stage.rule(
            work.primary, TaskSubmitted(task=task, queue=work.queue, payload=payload), tenant=work.tenant
        )
        stage.clock.advance(20)
        await hold(stage, work.tenant, task, work.agent(work.primary), work.primary, submitted)
        if finished_at is None:
            return
        yield finished_at
        holder = stage.held.pop(task)
        if number == GIVEN_UP:
            end: TaskCompleted | TaskFailed = TaskFailed(task=task, reason="the claimant withdrew")
        else:
            result = keep(stage, holder.region, work.tenant, {"task": task, "result": work.choices[0]})
            end = TaskCompleted(task=task, result=result)
        await stage.rule(holder.region, end, tenant=work.tenant, cause=holder.assigned)

    return storyline


async def hold(stage: Stage, tenant: str, task: str, owner: str, region: str, cause: Happened) -> None:
    """The task's first owner."""
    assigned = await stage.rule(
        region, TaskAssigned(task=task, owner=owner, owner_region=region), tenant=tenant, cause=cause
    )
    stage.held[task] = Holder(tenant=tenant, owner=owner, region=region, assigned=assigned)


def keep(stage: Stage, region: str, tenant: str, document: object) -> Content:
    """Puts a document into the content store, through the region's spool."""
    assert region in REGIONS
    with scope.entered(tenant=tenant):
        return stage.relights[region].content(orjson.dumps(document))
