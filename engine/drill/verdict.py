"""Which of the promises held, over all rounds."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from relight.engine.drill.figures import Figures
from relight.engine.drill.plan import LONGEST_RECORD_S, RTO_LOG_S, RTO_QUERIES_S, RTO_TASKS_S, Scenario

EXAMPLES = 5


class Promise(BaseModel):
    """`found` says what was measured; `broken` the first ids that break it, or what does."""

    model_config = ConfigDict(frozen=True)

    promise: str
    found: str
    held: bool
    broken: tuple[str, ...] = ()


def verdict(scenario: Scenario, rounds: Sequence[Figures]) -> list[Promise]:
    """`rounds`: one at least. Counts of events and tasks are cumulative: the last round has them all."""
    last = rounds[-1]
    promises = [
        _none("acknowledged events lost (RPO)", last.acknowledged_lost, of=last.acknowledged),
        _none("events spooled on a disk that was kept, lost", last.spooled_lost, of=last.recorded),
        _none("events doubled", last.doubled, of=last.recorded),
        _within("record() of any caller", [one.longest_record_s for one in rounds], LONGEST_RECORD_S),
        _within("time in which the stream took nothing", _log(rounds), RTO_LOG_S),
        _within("time without an acknowledgement anywhere (RTO of the log)", _acknowledged(rounds), RTO_LOG_S),
        _within("time without an answered query (RTO of queries)", _queries(rounds), RTO_QUERIES_S),
        _none("tasks completed twice", last.completed_twice, of=last.tasks_submitted),
        _none("tasks left unfinished", last.tasks_unfinished, of=last.tasks_submitted),
        _tables(rounds),
    ]
    hit = [one for one in rounds if one.tasks_held]
    if hit and scenario in (Scenario.REGION_LOSS, Scenario.DISK_WIPED, Scenario.LINK_CUT):
        waits = [float("inf") if one.tasks_last_s is None else one.tasks_last_s for one in hit]
        promises.append(_within("until all tasks of a lost region were completed (RTO of tasks)", waits, RTO_TASKS_S))
    if scenario is Scenario.REGION_LOSS:
        missing = [f"round {n}" for n, one in enumerate(rounds, 1) if one.failed_over_s is None]
        promises.append(_none("losses without a failover", missing, of=len(rounds)))
    if scenario is Scenario.LINK_CUT:
        silent = [f"round {n}" for n, one in enumerate(rounds, 1) if not one.spooled_meanwhile]
        promises.append(_none("cuts during which the region did not record to its spool", silent, of=len(rounds)))
    if scenario in (Scenario.SLOW_REGION, Scenario.ROLLING_RESTART):
        moved = [f"round {n}" for n, one in enumerate(rounds, 1) if one.failed_over_s is not None]
        promises.append(_none("failovers although nothing was lost", moved, of=len(rounds)))
    return promises


def _log(rounds: Sequence[Figures]) -> list[float]:
    return [one.log_stalled_s for one in rounds]


def _acknowledged(rounds: Sequence[Figures]) -> list[float]:
    return [one.acknowledged_stalled_s for one in rounds]


def _queries(rounds: Sequence[Figures]) -> list[float]:
    return [one.queries_stalled_s for one in rounds]


def _tables(rounds: Sequence[Figures]) -> Promise:
    differing = [f"round {n}: {name}" for n, one in enumerate(rounds, 1) for name in one.tables_differing]
    return _none("tables that differ between regions at the end of a round", differing, of=None)


def _none(what: str, found: Sequence[str], *, of: int | None) -> Promise:
    count = f"{len(found):,}" + ("" if of is None else f" of {of:,}")
    return Promise(promise=what, found=count, held=not found, broken=tuple(found[:EXAMPLES]))


def _within(what: str, found_s: Sequence[float], limit_s: float) -> Promise:
    late = tuple(f"round {n}: {one:.2f} s" for n, one in enumerate(found_s, 1) if one > limit_s)
    longest = max(found_s, default=0.0)
    return Promise(promise=what, found=f"{longest:.3f} s, allowed {limit_s:g} s", held=not late, broken=late[:EXAMPLES])
