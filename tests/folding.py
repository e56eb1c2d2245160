"""Events in, rows out: `given(events).when(times=2).then(table)` folds them from their bytes, in many orders."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from relight.events.base import Control, Event
from relight.events.catalog import decode_message
from relight.events.envelope import GENESIS, Head, Recorded, Ruling, encode
from relight.events.subjects import control_subject, observation_subject, source_of
from relight.projections.base import History, State
from relight.projections.catalog import projection_of, tables
from relight.projections.tables import Tables

START = datetime(2026, 1, 1, tzinfo=UTC)
Rows = list[dict[str, Any]]
Wire = tuple[str, bytes, Recorded[Event]]
"""Subject, body, and the event decoded from them."""


def moment(tick: int) -> datetime:
    """The time of the event made at this tick, a second each."""
    return START + timedelta(seconds=tick)


def event_id(ms: int, ordinal: int = 0) -> str:
    """A UUIDv7 of this Unix millisecond; `ordinal` tells those of one millisecond apart."""
    text = f"{ms:012x}7000{0x8000_0000_0000_0000 + ordinal:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def id_at(tick: int) -> str:
    """The id of the event made at this tick."""
    return event_id(int(moment(tick).timestamp() * 1000))


def wire(
    data: Event, *, id: str, time: datetime, tenant: str = "acme", region: str = "eu", rev: int | None = None
) -> Wire:
    """The event as its publisher encodes it and as a projector decodes it; `rev` of control events only."""
    head = Head(
        id=id, type=data.TYPE, version=data.VERSION, entity=data.entity, time=time, tenant=tenant, region=region
    )
    if data.POLICY is None:
        assert rev is None, "an observation has no rev"
        subject, publisher, ruling = observation_subject(region, data.TYPE, tenant), "test-publisher", None
    else:
        assert rev is not None, "a control event has a rev"
        subject = publisher = control_subject(data.POLICY, tenant, data.entity)
        ruling = Ruling(rev=rev, policy=data.POLICY, policyversion="1", decidedat=time, observedseq=0)
    body = encode(
        head,
        data.model_dump_json().encode(),
        source=source_of(region, "test"),
        publisher=publisher,
        pseq=rev or 1,
        prev=GENESIS,
        ruling=ruling,
    )
    return subject, body, decode_message(subject, body, int(START.timestamp() * 1000) + 2**31)


@dataclass(frozen=True, kw_only=True)
class Fact:
    """An event that is not simply the next one: made at another tick, elsewhere, or under a given rev."""

    data: Event
    tick: int | None = None
    rev: int | None = None
    tenant: str = "acme"
    region: str = "eu"


def fact(
    data: Event, *, tick: int | None = None, rev: int | None = None, tenant: str = "acme", region: str = "eu"
) -> Fact:
    return Fact(data=data, tick=tick, rev=rev, tenant=tenant, region=region)


class Given:
    """Events in the order in which they arrive."""

    def __init__(self, events: list[Recorded[Event]]) -> None:
        self.events = events

    def when(self, *, times: int = 2) -> "Folded":
        """Folds them `times` over, then in other orders, which must all give the same."""
        folded = fold(self.events * times)
        for order in _other_orders(self.events * times):
            assert rows_of(fold(order)) == rows_of(folded), f"another order: {[event.type for event in order]}"
        return Folded(folded)


class Folded:
    """What the events came to."""

    def __init__(self, folded: Tables) -> None:
        self._folded = folded

    def then(self, table: State | History) -> Rows:
        """The table's rows by column, in the order of its primary key."""
        return [dict(zip(table.columns(), row, strict=True)) for row in self._folded.rows(table)]


def given(*facts: Event | Fact) -> Given:
    """Ids rise and control events' revs count up, unless a `fact` says otherwise."""
    return Given(list(_recorded(facts)))


def fold(events: Iterable[Recorded[Event]]) -> Tables:
    """All events through the projection of each."""
    folded = Tables()
    for event in events:
        projection = projection_of(event.type)
        if projection is not None:
            folded.apply(projection, event)
    return folded


def rows_of(folded: Tables) -> dict[str, str]:
    """Every table's rows as text, in which 1, 1.0 and True differ."""
    return {table.name: repr(list(folded.rows(table))) for table in tables()}


def _recorded(facts: tuple[Event | Fact, ...]) -> Iterator[Recorded[Event]]:
    revs: dict[str, int] = {}
    for position, item in enumerate(facts, 1):
        said = item if isinstance(item, Fact) else Fact(data=item)
        data, rev = said.data, said.rev
        if isinstance(data, Control):
            assert data.POLICY is not None
            subject = control_subject(data.POLICY, said.tenant, data.entity)
            rev = revs[subject] = rev or revs.get(subject, 0) + 1
        tick = position if said.tick is None else said.tick
        yield wire(data, id=id_at(tick), time=moment(tick), tenant=said.tenant, region=said.region, rev=rev)[2]


def _other_orders(events: list[Recorded[Event]]) -> Iterator[list[Recorded[Event]]]:
    yield events[::-1]
    for seed in range(10):
        yield random.Random(seed).sample(events, len(events))
