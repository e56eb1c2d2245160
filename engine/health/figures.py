"""The numbers among the checks that scripts read, by flat names."""

from collections.abc import Mapping
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, JsonValue

SPOOL_FIGURES = {
    "spools": "spools:count",
    "events": "spools:exposedEvents",
    "bytes": "spools:exposedBytes",
    "oldest_s": "spools:exposedAge",
    "unreadable": "spools:unreadable",
    "aside": "spools:aside",
}
FIGURES = {
    "position": "projection:position",
    "seq": "projection:sequence",
    "last_seq": "stream:lastSequence",
    "lag_events": "projection:lag",
    "lag_s": "projection:lagTime",
    "stood_still_s": "projection:stoodStill",
    "moved_at": "projection:movedAt",
    "gaps": "projection:gaps",
    "missing_events": "projection:missingEvents",
    "late_events": "healing:lateEvents",
    "lost_events": "healing:lostEvents",
    "healed_events": "healing:healedEvents",
    "refused_events": "projection:refusedEvents",
    "forks": "chains:forks",
    "broken_links": "chains:brokenLinks",
    "tails_in_doubt": "chains:tailsInDoubt",
    "dead_letters": "projection:deadLetters",
    "open_breakers": "breakers:open",
    "half_open_breakers": "breakers:halfOpen",
    "projector": "projector:state",
    "proof": "fsync:proof",
}


class ExposedSpool(BaseModel):
    """What is recorded on this machine and not yet acknowledged by the stream."""

    model_config = ConfigDict(frozen=True)

    spools: int = 0
    events: int = 0
    bytes: int = 0
    oldest_s: float | None = None
    unreadable: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()


class Figures(BaseModel):
    """Null is what could not be asked."""

    model_config = ConfigDict(frozen=True)

    position: str | None = None
    seq: int | None = None
    last_seq: int | None = None
    lag_events: int | None = None
    lag_s: float | None = None
    stood_still_s: float | None = None
    moved_at: datetime | None = None
    gaps: int | None = None
    missing_events: int | None = None
    late_events: int | None = None
    lost_events: int | None = None
    healed_events: int | None = None
    refused_events: int | None = None
    forks: int | None = None
    broken_links: int | None = None
    tails_in_doubt: int | None = None
    dead_letters: int | None = None
    open_breakers: int | None = None
    half_open_breakers: int | None = None
    projector: str | None = None
    proof: str | None = None
    exposed: ExposedSpool = ExposedSpool()

    @classmethod
    def of(cls, observed: Mapping[str, JsonValue]) -> Self:
        """From what was observed, by `component:measurement`."""
        exposed = {name: observed[key] for name, key in SPOOL_FIGURES.items() if key in observed}
        flat = {name: observed[key] for name, key in FIGURES.items() if key in observed}
        return cls.model_validate({**flat, "exposed": exposed})
