"""What sources say of calls, beside the calls that were counted while programs ran."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from relight.engine.coverage.models import Guarded, Kind, Site


class Agreement(StrEnum):
    """Only `contradicted` fails: the sources say that a Guard is in, and calls were made without one."""

    AGREED = "agreed"
    CONTRADICTED = "contradicted"
    BETTER = "better"
    """guarded when it ran, though the sources do not show that"""
    NOT_IN_SOURCES = "not_in_sources"
    NEVER_SEEN = "never_seen"


@dataclass(frozen=True, slots=True)
class Seen:
    """Calls that were counted from one place, `path:line`."""

    site: str
    guarded: int
    raw: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One place as both know it, or one of them. `site` is None where the sources show nothing."""

    agreement: Agreement
    place: str
    site: Site | None
    guarded: int
    raw: int
    said: str


def compare(sites: Iterable[Site], seen: Sequence[Seen]) -> tuple[Compared, ...]:
    """Worst first. Calls in tests that never ran are left out: nobody expects them to."""
    calls = [site for site in sites if site.kind is Kind.CALL]
    matched: dict[Site, list[Seen]] = {}
    strangers: list[Seen] = []
    for one in seen:
        site = _site_of(one.site, calls)
        if site is None:
            strangers.append(one)
        else:
            matched.setdefault(site, []).append(one)
    compared = [_both(site, matched[site]) if site in matched else _never(site) for site in calls]
    compared += [_stranger(one) for one in strangers]
    order = [
        *(Agreement.CONTRADICTED, Agreement.NOT_IN_SOURCES, Agreement.BETTER),
        *(Agreement.NEVER_SEEN, Agreement.AGREED),
    ]
    kept = [
        one
        for one in compared
        if not (one.agreement is Agreement.NEVER_SEEN and one.site is not None and one.site.in_test)
    ]
    return tuple(sorted(kept, key=lambda one: (order.index(one.agreement), one.place)))


def _site_of(place: str, calls: Sequence[Site]) -> Site | None:
    """The call at that line, of the file whose path agrees with it the longest from its end.

    Programs run from other folders than the one that is read, so one path has to end in the other.
    """
    path, _, number = place.rpartition(":")
    if not number.isdigit():
        return None
    line, parts = int(number), PurePosixPath(path).parts
    best: tuple[tuple[int, int], Site] | None = None
    for site in calls:
        if not site.line <= line <= site.end_line:
            continue
        own = PurePosixPath(site.path).parts
        common = _common_end(parts, own)
        if common < min(len(parts), len(own)):
            continue
        rank = (common, -(site.end_line - site.line))
        if best is None or rank > best[0]:
            best = (rank, site)
    return best[1] if best is not None else None


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def _both(site: Site, seen: Sequence[Seen]) -> Compared:
    guarded, raw = sum(one.guarded for one in seen), sum(one.raw for one in seen)
    match site.guarded:
        case Guarded.YES if raw:
            agreement = Agreement.CONTRADICTED
            said = f"the sources say that it is guarded, and {raw} of {guarded + raw} calls were made without a Guard"
        case Guarded.YES:
            agreement, said = Agreement.AGREED, f"all {guarded} calls were guarded"
        case Guarded.NO | Guarded.UNKNOWN if not raw:
            agreement = Agreement.BETTER
            said = f"all {guarded} calls were guarded, which the sources do not show"
        case _:
            agreement, said = Agreement.AGREED, f"{raw} of {guarded + raw} calls were made without a Guard"
    return Compared(
        agreement=agreement, place=f"{site.path}:{site.line}", site=site, guarded=guarded, raw=raw, said=said
    )


def _never(site: Site) -> Compared:
    return Compared(
        agreement=Agreement.NEVER_SEEN,
        place=f"{site.path}:{site.line}",
        site=site,
        guarded=0,
        raw=0,
        said="no call from here was counted",
    )


def _stranger(one: Seen) -> Compared:
    total = one.guarded + one.raw
    how = "all guarded" if not one.raw else f"{one.raw} of them without a Guard"
    return Compared(
        agreement=Agreement.NOT_IN_SOURCES,
        place=one.site,
        site=None,
        guarded=one.guarded,
        raw=one.raw,
        said=f"{total} calls came from here, {how}; the sources that were read show none at this line",
    )
