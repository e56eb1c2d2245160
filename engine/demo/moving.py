"""What moves when a region is lost: its queues, and its tasks under a higher epoch, each with its migration."""

from relight.engine.demo.stage import Happened, Holder, Stage
from relight.engine.demo.world import EU, WORKS
from relight.events.queues import QueueFailedOver, QueueRecovered
from relight.events.tasks import (
    TaskMigrationCompleted,
    TaskMigrationFailed,
    TaskMigrationStarted,
    TaskReassigned,
)


async def move_queues(stage: Stage, target: str, cause: Happened) -> None:
    """`target` leads the queues that eu led."""
    for work in WORKS:
        if work.primary != EU:
            continue
        failed_over = QueueFailedOver(
            queue_name=work.queue,
            primary_region=target,
            replica_regions=tuple(region for region in work.replicas if region != target),
            is_active=True,
            reason="eu is lost",
            from_region=EU,
            task_count=sum(holder.tenant == work.tenant for holder in stage.held.values()),
        )
        moved = await stage.rule(target, failed_over, tenant=work.tenant, cause=cause)
        stage.facts[f"queue {work.queue}"] = moved


async def move_queues_back(stage: Stage, source: str, cause: Happened) -> None:
    """eu leads its queues again."""
    for work in WORKS:
        if work.primary != EU:
            continue
        recovered = QueueRecovered(
            queue_name=work.queue,
            primary_region=EU,
            replica_regions=work.replicas,
            is_active=True,
            reason="eu is back",
            from_region=source,
        )
        stage.facts[f"queue {work.queue}"] = await stage.rule(EU, recovered, tenant=work.tenant, cause=cause)


async def reassign(stage: Stage, task: str, target: str, reason: str, cause: Happened) -> Happened:
    """A new owner in `target`; returns the start of its migration."""
    lost = stage.held[task]
    owner = f"{task.partition('-')[0]}-agent-{target}"
    reassigned = await stage.rule(
        target,
        TaskReassigned(
            task=task,
            owner=owner,
            owner_region=target,
            from_owner=lost.owner,
            from_region=lost.region,
            reason=reason,
        ),
        tenant=lost.tenant,
        cause=cause,
    )
    stage.held[task] = Holder(tenant=lost.tenant, owner=owner, region=target, assigned=reassigned)
    stage.clock.advance(0.5)
    started = TaskMigrationStarted(
        task=task, from_region=lost.region, to_region=target, reason=reason, started_at=stage.now()
    )
    return stage.record(target, started, tenant=lost.tenant, agent=owner, task=task, cause=reassigned)


def migrated(stage: Stage, task: str, from_region: str, reason: str, started: Happened) -> Happened:
    """The new owner works on from the last checkpoint."""
    return _ended(TaskMigrationCompleted, stage, task, from_region, reason, started)


def not_migrated(stage: Stage, task: str, from_region: str, reason: str, started: Happened) -> Happened:
    """The new owner could not take over."""
    return _ended(TaskMigrationFailed, stage, task, from_region, reason, started)


def _ended(
    kind: type[TaskMigrationCompleted] | type[TaskMigrationFailed],
    stage: Stage,
    task: str,
    from_region: str,
    reason: str,
    started: Happened,
) -> Happened:
    holder = stage.held[task]
    ended = kind(
        task=task,
        from_region=from_region,
        to_region=holder.region,
        reason=reason,
        started_at=started.at,
        completed_at=stage.now(),
    )
    return stage.record(holder.region, ended, tenant=holder.tenant, agent=holder.owner, task=task, cause=started)
