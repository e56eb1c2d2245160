"""What a round came to: events lost and doubled (RPO), and how long whom had to wait (RTO)."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from pydantic import BaseModel, ConfigDict

from relight.engine.drill.asking import Answered
from relight.engine.drill.ledger import Told
from relight.engine.drill.plan import Fault
from relight.engine.drill.stream import Stream
from relight.engine.tables.digest import Digest


class Figures(BaseModel):
    """Of one round. Lists are ids; times in seconds, null where nothing had to be waited for, or it never came.

    `log_stalled_s`: the longest time in which the stream took nothing; `acknowledged_stalled_s`: in which nobody heard
    of REPLICATED, which waits for a proof that the servers left fsync. `tasks_held`: by the region when it was hit;
    from then until the first and the last of them was completed.
    """

    model_config = ConfigDict(frozen=True)

    region: str
    what: str
    recorded: int
    acknowledged: int
    acknowledged_lost: tuple[str, ...]
    spooled_lost: tuple[str, ...]
    """Spooled on a disk that was kept."""
    gone_with_disk: int
    """Spooled only, on a disk that was deleted: never promised."""
    doubled: tuple[str, ...]
    refused: int
    longest_record_s: float
    log_stalled_s: float
    acknowledged_stalled_s: float
    acknowledged_again_s: Mapping[str, float | None]
    """By region, from the fault on."""
    spooled_meanwhile: int
    """By the region that was cut off, until it was let in again."""
    queries_stalled_s: float
    tables_stalled_s: float
    tasks_held: int
    tasks_first_s: float | None
    tasks_last_s: float | None
    tasks_submitted: int
    tasks_unfinished: tuple[str, ...]
    completed_twice: tuple[str, ...]
    isolated_s: float | None
    failed_over_s: float | None
    returned: bool
    took_s: float
    tables_differing: tuple[str, ...]


def figures(
    fault: Fault,
    told: Told,
    stream: Stream,
    answers: Sequence[Answered],
    digests: Mapping[str, Digest],
    *,
    since_s: float,
    until_s: float,
    wiped: Mapping[str, Sequence[float]],
) -> Figures:
    """`since_s` to `until_s`: the round. `wiped`: when each region's disk was deleted."""
    held = stream.held_by(fault.region, fault.began_s) if fault.lost or fault.cut_off else []
    completed = sorted(at for task in held if (at := stream.completed_at(task)) is not None)
    window = (fault.began_s, until_s)
    gone = {
        id for id in told.spooled if id not in told.replicated and not stream.ids[id] and _on_wiped(id, told, wiped)
    }
    return Figures(
        region=fault.region,
        what=fault.what,
        recorded=len(told.asked),
        acknowledged=len(told.replicated),
        acknowledged_lost=tuple(id for id in told.replicated if not stream.ids[id]),
        spooled_lost=tuple(id for id in told.spooled if not stream.ids[id] and id not in gone),
        gone_with_disk=len(gone),
        doubled=tuple(id for id, times in stream.ids.items() if times > 1),
        refused=len(told.refused),
        longest_record_s=max((took for at, took, _ in told.took if since_s <= at <= until_s), default=0.0),
        log_stalled_s=_gap(stream.arrived, *window),
        acknowledged_stalled_s=_gap([at for at, _ in told.acknowledged], *window),
        acknowledged_again_s={
            region: _first([at for at, of in told.acknowledged if of == region], fault.began_s)
            for region in sorted({region for _, region in told.acknowledged})
        },
        spooled_meanwhile=sum(
            events
            for at, region, events in told.spooling
            if region == fault.region and fault.began_s <= at <= fault.ended_s
        ),
        queries_stalled_s=max(
            _gap([one.at_s for one in answers if one.home == home], *window) for home in {one.home for one in answers}
        ),
        tables_stalled_s=_gap(_moved(one for one in answers if one.region != fault.region), *window),
        tasks_held=len(held),
        tasks_first_s=completed[0] - fault.began_s if completed else None,
        tasks_last_s=completed[-1] - fault.began_s if completed and len(completed) == len(held) else None,
        tasks_submitted=len(told.submitted),
        tasks_unfinished=tuple(
            sorted(set(stream.unfinished()) | {task for task in told.submitted if task not in stream.tasks})
        ),
        completed_twice=tuple(
            task for task, steps in stream.tasks.items() if sum(step.type == "tasks.completed" for step in steps) > 1
        ),
        isolated_s=_since(stream, fault, "faults.isolated"),
        failed_over_s=_since(stream, fault, "failover.completed"),
        returned=bool(stream.since(fault.began_s, "failover.returned")),
        took_s=until_s - since_s,
        tables_differing=_differing(digests),
    )


def _on_wiped(id: str, told: Told, wiped: Mapping[str, Sequence[float]]) -> bool:
    return told.asked.get(id) in wiped


def _gap(moments: Sequence[float], since_s: float, until_s: float) -> float:
    """The longest time without one of them, from the last before `since_s` on."""
    before = [at for at in moments if at < since_s][-1:]
    within = [at for at in moments if since_s <= at <= until_s]
    return max((later - one for one, later in pairwise([*(before or [since_s]), *within])), default=0.0)


def _first(moments: Sequence[float], since_s: float) -> float | None:
    return next((at - since_s for at in moments if at > since_s), None)


def _moved(answers: Iterable[Answered]) -> list[float]:
    """When tables were seen further than before."""
    moments, seq = [], -1
    for one in answers:
        if one.seq > seq:
            moments.append(one.at_s)
            seq = one.seq
    return moments


def _since(stream: Stream, fault: Fault, type: str) -> float | None:
    found = stream.since(fault.began_s, type)
    return found[0].at_s - fault.began_s if found else None


def _differing(digests: Mapping[str, Digest]) -> tuple[str, ...]:
    """Tables that are not the same everywhere."""
    names = sorted({name for digest in digests.values() for name in digest.tables})
    return tuple(name for name in names if len({digest.tables.get(name) for digest in digests.values()}) > 1)
