"""What the stream has lost: late while it is being healed, lost where nobody has it, and what was healed."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from relight.engine.health.models import Check
from relight.engine.health.postgres import Counts, DatabaseLook


def healing_checks(look: DatabaseLook, now: datetime) -> Iterator[Check]:
    """As the healer has noted it; nothing where that could not be read."""
    if look.tables is None or (found := look.tables.counts) is None:
        return
    healing = partial(Check, component="healing", time=now, unit="events")
    yield healing(measurement="lateEvents", observed=found.late_events).warned(
        found.late_events,
        f"{found.late_events} events are missing on the stream since {_at(found.late_since)} and are asked for in"
        f" spools and archive ({_named(found)}): if a machine that recorded them is off, start it",
    )
    yield healing(measurement="lostEvents", observed=found.lost_events).warned(
        found.lost_events,
        f"{found.lost_events} events are missing on the stream since {_at(found.lost_since)} and nobody who was asked"
        f" has them ({_named(found)}): bring back a spool or an archive that does, or record them as lost",
    )
    yield healing(measurement="healedEvents", observed=found.healed_events)


def _at(moment: datetime | None) -> str:
    return "?" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _named(found: Counts) -> str:
    named = list(found.named_losses or ())
    return ", ".join(named) + (" and others" if len(named) == 3 else "") + "; see `relight heal --dry-run`"
