"""What a run of kills comes to: where the kills lay, what was told, and whether it held."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Literal

from chaos_plan import ChaosPlan
from kept import PROMISES, REFUSED, Kept
from reporting import Report

PHASE = "kills"
INSIDE = 0.95
"""The share of kills that have to lie inside the run, by sequence and by position."""

Victim = Literal["publisher", "drainer", "projector", "NATS", "PostgreSQL"]


@dataclass(kw_only=True)
class Kill:
    """One round: who, how, and how far stream, tables and spools were in that moment."""

    round: int
    scene: int
    victim: Victim
    how: str
    at_s: float
    seq: int
    projected_seq: int
    spooled_events: int
    down_s: float
    end_seq: int = 0

    @property
    def is_inside(self) -> bool:
        return 0 < self.seq < self.end_seq and 0 < self.projected_seq < self.end_seq


def tell(
    report: Report,
    plan: ChaosPlan,
    kills: list[Kill],
    kept: Kept,
    told: Counter[str],
    still_s: dict[str, list[float]],
    checks: int,
    took_s: float,
) -> None:
    """`still_s`: from the kill of what moves stream and tables until they moved again."""
    by_victim = Counter(f"{kill.victim}" for kill in kills)
    hows = Counter(f"{kill.victim}: {kill.how}" for kill in kills)
    said = ", ".join(f"{victim} {times}" for victim, times in by_victim.most_common())
    report.promise(
        PHASE,
        "rounds played; victims",
        f"{len(kills):,}: {said}",
        asked=f"{plan.rounds:,}",
        kept=len(kills) == plan.rounds,
        detail="the last scene did not come to rest: see below",
    )
    scenes = len({kill.scene for kill in kills})
    report.figure(
        PHASE,
        "scenes; checks of everything; time; events",
        f"{scenes}; {checks}; {took_s:,.0f} s; {kept.counts['events']:,}",
    )
    inside = [kill for kill in kills if kill.is_inside]
    report.promise(
        PHASE,
        "kills inside the run, by stream sequence and by position",
        f"{len(inside):,} of {len(kills):,}",
        asked=f">= {INSIDE:.0%}",
        kept=len(inside) >= INSIDE * len(kills) and bool(kills),
        detail=str([(kill.round, kill.seq, kill.projected_seq, kill.end_seq) for kill in kills if not kill.is_inside]),
    )
    ended = [kill for kill in kills if kill.end_seq]
    for name, values in (
        ("stream sequence at the kills, share of its scene's end", [kill.seq / kill.end_seq for kill in ended]),
        ("position of the tables at the kills, the same", [kill.projected_seq / kill.end_seq for kill in ended]),
    ):
        report.figure(PHASE, f"{name}: deciles", _deciles(values, "{:.2f}"))
    depths = [float(kill.spooled_events) for kill in kills]
    behind = [float(max(0, kill.seq - kill.projected_seq)) for kill in kills]
    report.figure(PHASE, "events in spools alone at the kills: deciles", _deciles(depths, "{:,.0f}"))
    report.figure(
        PHASE, "events on the stream and not in the tables at the kills: deciles", _deciles(behind, "{:,.0f}")
    )
    busy = sum(kill.spooled_events > 0 or kill.seq > kill.projected_seq for kill in kills)
    report.figure(PHASE, "kills with events on their way", f"{busy:,} of {len(kills):,}")
    for what, after in (("stream", "NATS"), ("tables", "a projector or PostgreSQL")):
        name = f"s from a kill of {after} until the {what} went on: deciles"
        report.figure(PHASE, name, _deciles(still_s[what], "{:.1f}"))
    figures = ", ".join(f"{name} {number:,}" for name, number in told.items())
    report.figure(PHASE, "told", figures)
    for promise in PROMISES:
        lacking = kept.broken[promise]
        report.promise(
            PHASE,
            promise,
            f"{kept.counts[promise]:,}" + (f", {len(lacking):,} not so" if lacking else ""),
            asked="0" if promise == REFUSED else "all",
            kept=not lacking,
            detail=kept.examples(promise),
        )
    report.figures[PHASE] = {
        "kills": [asdict(kill) for kill in kills],
        "victims": hows,
        "told": told,
        "stood_still_s": still_s,
        "compared": kept.counts,
        "broken": {promise: found for promise, found in kept.broken.items() if found},
        "seconds": took_s,
    }


def _deciles(values: list[float], form: str) -> str:
    ordered = sorted(values)
    if not ordered:
        return "none"
    return " ".join(form.format(ordered[round(tenth / 10 * (len(ordered) - 1))]) for tenth in range(11))
