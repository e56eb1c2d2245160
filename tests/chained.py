"""Logs of several publishers and control subjects in memory, chained as publishers chain them, and their audit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson
from folding import event_id
from stack import encoded

from relight.engine.audit.copies import Again
from relight.engine.audit.judging import Circumstances, Expected, Judgement, judge
from relight.engine.audit.walking import Walk
from relight.engine.log.chain import PublisherHead, body_sha256
from relight.engine.log.links import link_of
from relight.engine.log.numbers import Ranges
from relight.engine.log.reader import Message
from relight.events.base import Event
from relight.events.breakers import BreakerClosed, BreakerFailed, BreakerSucceeded
from relight.events.envelope import GENESIS
from relight.events.recorder import RecorderOpened

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
NOW_NS = 1_773_480_413_000_000_000
MILLISECOND_NS = 1_000_000
RULING = "ctl"

Written = tuple[str, bytes, str]
"""Subject, body and message id."""


@dataclass
class Book:
    """What publishers have written: each chain goes on from here. A name that begins with `ctl` rules on a breaker."""

    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    events: int = 0

    def event(self, publisher: str) -> Written:
        """The publisher's next event."""
        self.events += 1
        id = event_id(NOW_NS // MILLISECOND_NS + self.events, self.events)
        pseq, prev = self.heads.get(publisher, (0, GENESIS))
        data = self._data(publisher, pseq)
        subject, body = encoded(data, id=id, time=NOW, pseq=pseq + 1, prev=prev, publisher=publisher)
        self.heads[publisher] = (pseq + 1, body_sha256(body))
        return subject, body, id

    def _data(self, publisher: str, pseq: int) -> Event:
        if publisher.startswith(RULING):
            return BreakerClosed(service_name=publisher, reason="calls pass")
        if pseq == 0:
            return RecorderOpened(
                publisher=publisher,
                predecessor_pseq=0,
                predecessor_sha256=GENESIS,
                host="h",
                process_id=1,
                durable=True,
            )
        if pseq % 3 == 2:
            return BreakerSucceeded(service_name="api-ü", latency_ms=self.events)
        return BreakerFailed(service_name="api", error_class="Timeout", details={"n": self.events})


def written(publishers: Iterable[str]) -> list[Written]:
    """An event of each in this order; they may come again and again."""
    book = Book()
    return [book.event(publisher) for publisher in publishers]


def healed(event: Written, attempt: int = 1) -> Written:
    """The same bytes under a fresh id."""
    return event[0], event[1], f"{event[2]}#h{attempt}"


def log_of(events: Iterable[Written]) -> list[Message]:
    """As they stand on a stream, a millisecond between two."""
    return [
        Message(seq, NOW_NS + seq * MILLISECOND_NS, subject, body, id)
        for seq, (subject, body, id) in enumerate(events, start=1)
    ]


def publisher_of(event: Written) -> str:
    return str(orjson.loads(event[1])["publisher"])


def heads_of(messages: Iterable[Message]) -> dict[str, Expected]:
    """As the tables have them once they have folded these."""
    heads: dict[str, PublisherHead] = {}
    for message in messages:
        link = link_of(message)
        assert link is not None
        heads.setdefault(link.publisher, PublisherHead()).see(link.pseq, link.prev, link.sha256)
    return {name: Expected(head.highest_pseq, head.highest_sha256, "the tables") for name, head in heads.items()}


def audited(
    messages: Sequence[Message],
    heads: Mapping[str, Expected] | None = None,
    *,
    passed: bool = False,
    lost: Mapping[str, Ranges] | None = None,
    sealed: Mapping[str, Ranges] | None = None,
    trimmed_seq: int = 0,
) -> Judgement:
    """The walk over them, beside tables with these heads; `passed`: which have folded all of it."""
    heads = heads or {}
    walk = Walk(
        vouched={name: {head.highest: (head.sha256, head.holder)} for name, head in heads.items()},
        known=heads,
        passing_seq=messages[-1].seq if passed and messages else None,
    )
    walk.take(messages)
    walk.end(messages[-1].seq if messages else 0)
    again = Again.of(walk.chains.values())
    if again.asked:
        again.take(messages)
    circumstances = Circumstances(
        expected=heads,
        passed={name: head.highest for name, head in heads.items()} if passed else None,
        lost=lost or {},
        sealed=sealed or {},
        trimmed_seq=trimmed_seq,
    )
    return judge(walk, again, circumstances)
