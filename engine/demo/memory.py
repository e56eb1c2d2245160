"""What agents know is kept: snapshots of the tasks in hand, copied to the other regions and read back there."""

from relight.engine.demo.stage import Happened, Stage, Storyline
from relight.engine.demo.tasks import keep
from relight.engine.demo.world import REGIONS
from relight.engine.recorder.receipts import Ack
from relight.events.intelligence import (
    IntelligenceReplicationCompleted,
    IntelligenceReplicationFailed,
    IntelligenceReplicationRequested,
    IntelligenceReplicationStarted,
    IntelligenceSnapshotTaken,
)
from relight.events.values import Content

TIMES = ("04:40", "11:40", "13:55", "14:40", "17:00", "22:20")
"""Just before a region is lost, while it is, and after it is back among them."""


async def snapshots(stage: Stage) -> Storyline:
    """Of every task in hand, at these times."""
    for number, time in enumerate(TIMES, 1):
        yield time
        for task, holder in sorted(stage.held.items()):
            snapshot = f"{task}-memory-{number}"
            state = {"task": task, "steps_done": number * 3, "notes": [f"step {n} is done" for n in range(number * 3)]}
            content = keep(stage, holder.region, holder.tenant, state)
            event = IntelligenceSnapshotTaken(
                snapshot=snapshot,
                snapshot_type="agent_memory",
                source_region=holder.region,
                agent=holder.owner,
                task=task,
                epoch=holder.assigned.rev,
                content=content,
            )
            taken = stage.record(
                holder.region, event, tenant=holder.tenant, agent=holder.owner, task=task, cause=holder.assigned
            )
            for target in REGIONS:
                if target != holder.region:
                    await _replicate(stage, holder.tenant, snapshot, content, taken, target)


async def _replicate(stage: Stage, tenant: str, snapshot: str, content: Content, taken: Happened, target: str) -> None:
    assert taken.receipt is not None
    source = stage.up()[0]
    request = IntelligenceReplicationRequested(snapshot=snapshot, target_region=target)
    requested = stage.record(source, request, tenant=tenant, cause=taken)
    stage.clock.advance(0.2)
    if target in stage.lost:
        failed = IntelligenceReplicationFailed(
            snapshot=snapshot, target_region=target, completed_at=stage.now(), reason=f"{target} does not answer"
        )
        stage.record(source, failed, tenant=tenant, cause=requested)
        return
    began = IntelligenceReplicationStarted(snapshot=snapshot, target_region=target, started_at=stage.now())
    started = stage.record(target, began, tenant=tenant, cause=requested)
    # This part is not only told: the content is read back through the target's own connection, and hashed.
    await taken.receipt.reached(Ack.REPLICATED)
    await stage.relights[target].fetch(content, tenant=tenant)
    stage.clock.advance(0.6)
    completed = IntelligenceReplicationCompleted(
        snapshot=snapshot,
        target_region=target,
        started_at=started.at,
        completed_at=stage.now(),
        verified_sha256=content.sha256,
    )
    stage.record(target, completed, tenant=tenant, cause=started)
