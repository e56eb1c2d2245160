"""The chain walk: any harm to a log is found, on the event that was harmed, and an untouched log has no finding."""

from collections.abc import Sequence
from dataclasses import replace

from chained import (
    MILLISECOND_NS,
    Book,
    Written,
    audited,
    heads_of,
    healed,
    log_of,
    publisher_of,
    written,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from relight.engine.audit.models import Finding, Kind
from relight.engine.log.links import link_of
from relight.engine.log.reader import Message

PUBLISHERS = ("host-1.0", "host-1.1", "ü", "ctl api", "ctl-2")

orders = st.lists(st.sampled_from(PUBLISHERS), min_size=1, max_size=40)


def told(findings: Sequence[Finding]) -> list[tuple[Kind, str | None, int | None, int | None]]:
    return [(found.kind, found.publisher, found.first_pseq, found.last_pseq) for found in findings]


def named(message: Message) -> tuple[str, int]:
    link = link_of(message)
    assert link is not None
    return link.publisher, link.pseq


@given(order=orders, data=st.data(), beside_tables=st.booleans())
@settings(deadline=None, max_examples=200)
def test_an_untouched_log_with_healed_copies_has_no_finding(
    order: list[str], data: st.DataObject, beside_tables: bool
) -> None:
    """Copies of what is there, and of what was lost: then the copy is all there is."""
    events = written(order)
    heads = heads_of(log_of(events)) if beside_tables else None
    for attempt in range(data.draw(st.integers(0, 4), label="heals")):
        at = data.draw(st.integers(0, len(events) - 1), label="which")
        event = events[at]
        lost = data.draw(st.booleans(), label="was lost") and "#h" not in event[2]
        if lost:
            del events[at]
        copy = (event[0], event[1], event[2].partition("#")[0])
        where = data.draw(st.integers(at + (not lost), len(events)), label="where")
        events.insert(where, healed(copy, attempt + 1))
    judgement = audited(log_of(events), heads, passed=beside_tables)
    assert judgement.findings == []
    assert judgement.missing == judgement.harmed == {}
    assert judgement.healed == sum("#h" in id for _, _, id in events)


@st.composite
def harmed(draw: st.DrawFn) -> tuple[list[Written], list[Written], dict[str, list[int]]]:
    """A log, the same with harm done, and which of its events were dropped or altered."""
    events = written(draw(st.lists(st.sampled_from(PUBLISHERS), min_size=4, max_size=30)))
    harms = draw(st.lists(st.sampled_from(("drop", "double", "swap", "alter", "insert")), min_size=1, max_size=4))
    free = list(range(len(events)))
    parts: list[list[Written]] = [[event] for event in events]
    done: dict[str, list[int]] = {harm: [] for harm in ("drop", "double", "swap", "alter", "insert")}
    for harm in harms:
        if not free:
            break
        at = draw(st.sampled_from(free))
        event = events[at]
        if harm == "swap":
            others = [i for i in free if i != at and publisher_of(events[i]) == publisher_of(event)]
            if not others:
                continue
            other = draw(st.sampled_from(others))
            free.remove(other)
            parts[at], parts[other] = parts[other], parts[at]
        elif harm == "drop":
            parts[at] = []
        elif harm == "double":
            where = draw(st.sampled_from([i for i in free if i >= at]))
            if where != at:
                free.remove(where)
            parts[where] = [*parts[where], event]
        elif harm == "alter":
            parts[at] = [altered(event, draw(st.integers(0, len(event[1]) - 1)), draw(st.integers(1, 255)))]
        else:
            parts[at] = [*parts[at], draw(st.sampled_from(forged(events, event)))]
        free.remove(at)
        done[harm].append(at)
    return events, [event for part in parts for event in part], done


def altered(event: Written, at: int, by: int) -> Written:
    """One byte of the body changed."""
    body = bytearray(event[1])
    body[at] ^= by
    return event[0], bytes(body), event[2]


def forged(events: list[Written], event: Written) -> list[Written]:
    """Messages that nobody of ours wrote."""
    book = Book(events=1_000)
    [stranger] = [book.event("stranger")]
    book.heads[publisher_of(event)] = (7, "ab" * 32)
    name = publisher_of(event)
    known = Book(heads={name: (7, "ab" * 32)}, events=2_000)
    return [
        stranger,
        ("ev.eu.breakers.acme.failed", b"junk", ""),
        (f"{event[0]}x", event[1], event[2]),
        known.event(name) if not name.startswith("ctl") else stranger,
    ]


@given(harm=harmed())
@settings(deadline=None, max_examples=500)
def test_any_combination_of_harm_is_found(harm: tuple[list[Written], list[Written], dict[str, list[int]]]) -> None:
    events, after, done = harm
    log = log_of(events)
    judgement = audited(log_of(after), heads_of(log), passed=True)
    if after == events:
        assert judgement.findings == []
        return
    assert judgement.findings
    for at in done["drop"]:
        publisher, pseq = named(log[at])
        assert any(first <= pseq <= last for first, last in judgement.harmed.get(publisher, []))


def test_what_a_publisher_sends_again_after_the_duplicate_window_is_counted_apart() -> None:
    """Its acknowledgement was lost, and NATS away for longer than the stream remembers ids."""
    log = log_of(written(["p"] * 6))
    for minutes, findings, repeated in ((1, 2, 0), (3, 0, 2)):
        later_ns = log[-1].timestamp_ns + minutes * 60_000 * MILLISECOND_NS
        again = [replace(m, seq=m.seq + 2, timestamp_ns=later_ns) for m in log[-2:]]
        judgement = audited([*log, *again], heads_of(log))
        assert sum(found.events for found in judgement.findings) == findings
        assert judgement.repeated == repeated


def test_a_number_that_was_not_due_is_the_finding_and_not_the_millions_below_it() -> None:
    book = Book()
    before = [book.event("p") for _ in range(5)]
    forger = Book(heads={"p": (10**9, "ab" * 32)}, events=1_000)
    log = log_of([*before, forger.event("p"), *(book.event("p") for _ in range(5))])
    assert told(audited(log).findings) == [(Kind.INSERTED, "p", 10**9 + 1, 10**9 + 1)]


def test_of_a_copied_spool_each_number_that_both_used_is_a_fork() -> None:
    book, copied = Book(), Book()
    before = [book.event("p") for _ in range(5)]
    copied.heads, copied.events = dict(book.heads), 1_000
    here, there = [book.event("p") for _ in range(3)], [copied.event("p") for _ in range(5)]
    in_turns = [event for pair in zip(here, there[:3], strict=True) for event in pair]
    judgement = audited(log_of([*before, *in_turns, *there[3:]]))
    runs = [(f.first_pseq or 0, f.last_pseq or 0) for f in judgement.findings if f.kind is Kind.FORKED]
    forked = {n for first, last in runs for n in range(first, last + 1)}
    assert forked == {6, 7, 8}
    assert judgement.missing == {}


def test_a_dead_letter_whose_event_stands_there_as_a_healed_copy_is_no_finding() -> None:
    """Nothing of it was folded; what was folded with another content stays one, for no copy takes that back."""
    events = written(["p"] * 6)
    unreadable = (events[2][0], events[2][1][:-1] + b"]", events[2][2])
    log = log_of([*events[:2], unreadable, *events[3:], healed(events[2])])
    judgement = audited(log, heads_of(log_of(events)))
    assert (judgement.findings, judgement.harmed, judgement.mended) == ([], {}, 1)
    folded = altered(events[2], events[2][1].index(b"relight://eu") + 11, 3)
    [found] = audited(log_of([*events[:2], folded, *events[3:], healed(events[2])])).findings
    assert (found.kind, found.first_pseq) == (Kind.ALTERED, 3)
    assert "stand at sequence 7" in found.detail
