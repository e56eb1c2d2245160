"""10,000 random single-byte changes to recorded messages: each is found, on the event that was changed."""

import random
from dataclasses import replace

import pytest_asyncio
import stack
from chained import audited, heads_of
from recorded import messages_of, named, record_all
from stack import nats_server

from relight.engine.audit.envelopes import place_of
from relight.engine.audit.models import Finding, Kind
from relight.engine.log.reader import Message

CHANGES, WALKED_WHOLE, SEED = 10_000, 400, 20_260_314


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recorded() -> list[Message]:
    """As two recorders and their rulings stand on a real stream."""
    with stack.folder() as spools:
        async with nats_server(sync_always=False) as nats:
            await record_all(nats, spools / "spool", events=60, rulings=9)
            return await messages_of(nats)


def changed(message: Message, chance: random.Random) -> tuple[Message, str]:
    """One byte of body, subject or message id is another; and what exactly."""
    part = chance.choices(("body", "subject", "message_id"), (90, 8, 2))[0]
    text = message.body if part == "body" else getattr(message, part).encode()
    while True:
        at = chance.randrange(len(text))
        # As often a character that JSON likes as any byte at all.
        byte = chance.choice(b'0123456789abcdef",:{}\\ .') if chance.random() < 0.5 else chance.randrange(256)
        harmed = text[:at] + bytes([byte]) + text[at + 1 :]
        if byte == text[at]:
            continue
        if part == "body":
            return replace(message, body=harmed), f"{part}[{at}] {text[at]:#x} -> {byte:#x}"
        if byte < 128:
            return replace(message, **{part: harmed.decode()}), f"{part}[{at}] {text[at]:#x} -> {byte:#x}"


async def test_every_one_of_10_000_changed_bytes_is_found_and_names_the_event(recorded: list[Message]) -> None:
    """The chain of the changed event and the one that it names now are walked; that a walk of all says the same is
    shown on every 25th."""
    chance, heads = random.Random(SEED), heads_of(recorded)
    chains: dict[str, list[Message]] = {}
    for message in recorded:
        chains.setdefault(named(message)[0], []).append(message)
    assert len(chains) == 4
    assert audited(recorded, heads, passed=True).findings == []
    for number in range(CHANGES):
        at = chance.randrange(len(recorded))
        before = recorded[at]
        after, what = changed(before, chance)
        publisher, pseq = named(before)
        names = {publisher, place_of(after).publisher} & chains.keys()
        log = sorted((after if m is before else m for name in names for m in chains[name]), key=lambda m: m.seq)
        found = audited(log, {name: heads[name] for name in names}, passed=True).findings
        assert _told(found) == [(Kind.ALTERED, publisher, pseq, pseq, before.seq)], (what, before, found)
        if number % (CHANGES // WALKED_WHOLE) == 0:
            whole = [*recorded[:at], after, *recorded[at + 1 :]]
            assert audited(whole, heads, passed=True).findings == found, what


def _told(findings: list[Finding]) -> list[tuple[Kind, str | None, int | None, int | None, int | None]]:
    return [(f.kind, f.publisher, f.first_pseq, f.last_pseq, f.seq) for f in findings]
