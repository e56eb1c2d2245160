"""From everything that was judged of a place to one site: guarded only if every way to it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from relight.engine.coverage.models import Evidence, Guarded, Kind, Site
from relight.engine.coverage.python.program import Program
from relight.engine.coverage.python.state import Found, Judgement
from relight.engine.coverage.python.surroundings import Surroundings
from relight.engine.coverage.python.values import Place


def sites_of(program: Program) -> Iterator[Site]:
    """All places, in the order of files and lines."""
    surroundings = Surroundings(program.edges)
    for (path, line, column, kind), found in sorted(program.found.items(), key=lambda item: item[0]):
        judgement, mixed = decisive(found)
        guarded, why, trail = judgement.guarded, judgement.why, judgement.trail
        if kind is Kind.CLIENT and guarded is Guarded.NO:
            guarded, why, trail = _by_use(Place(path, line, column + 1), program, why, trail)
        if mixed:
            why = f"{why}; on another way to it, it is guarded"
        warnings = dict.fromkeys(one.warning for one in found.judgements if one.warning is not None)
        module, node = found.module, found.node
        here = Evidence(path, line, f"{found.what} is called" if kind is Kind.CALL else f"{found.what} is constructed")
        yield Site(
            path=path,
            line=line,
            column=column + 1,
            end_line=node.end_lineno or line,
            language=module.source.language,
            kind=kind,
            what=found.what,
            guarded=guarded,
            why=why,
            evidence=tuple(dict.fromkeys((here, *trail))),
            warnings=tuple(warnings),
            within=surroundings.within(module, node),
            in_test=module.source.in_test,
            reasons=surroundings.reasons(module, node),
        )


def decisive(found: Found) -> tuple[Judgement, bool]:
    """The judgement that decides, and whether others say better.

    What tests hand in says nothing of other code, and that a caller decides says nothing where callers are known.
    """
    judgements = found.judgements
    if not found.module.source.in_test:
        judgements = [one for one in judgements if not one.in_test] or [_only_tests(one) for one in judgements]
    judgements = [one for one in judgements if not one.handed] or judgements
    order = [Guarded.NO, Guarded.UNKNOWN, Guarded.YES]
    worst = min(judgements, key=lambda one: order.index(one.guarded))
    return worst, worst.guarded is not Guarded.YES and any(one.guarded is Guarded.YES for one in judgements)


def _only_tests(judgement: Judgement) -> Judgement:
    return Judgement(
        Guarded.UNKNOWN, f"only tests hand a client to it: {judgement.why}", judgement.trail, True, judgement.in_test
    )


def _by_use(
    place: Place, program: Program, why: str, trail: tuple[Evidence, ...]
) -> tuple[Guarded, str, tuple[Evidence, ...]]:
    """A client without a Guard of its own is guarded if it goes through one before any call."""
    raw: Mapping[Place, Place] = program.called_raw
    if place in raw:
        called = raw[place]
        return Guarded.NO, why, (*trail, Evidence(called.path, called.line, "it is called without a Guard"))
    if place in program.guarded_at:
        where, by = program.guarded_at[place]
        through = Evidence(where.path, where.line, f"it passes through {by}")
        return Guarded.YES, f"it passes through {by} at {where}, and no call is made past that", (*trail, through)
    if place in program.perhaps_guarded_at:
        where, by = program.perhaps_guarded_at[place]
        return Guarded.UNKNOWN, f"it goes through {by} at {where}, and whether that guards it is not known", trail
    return Guarded.NO, why, trail
