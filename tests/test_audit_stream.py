"""The audit of a real stream beside real tables: exact where it was harmed, silent where it was not."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import damage
import stack
from chained import written
from recorded import at_numbers, audited, messages_of, named, put_again, reading, record_all, record_some, rule
from stack import ROLE, Projecting, connected, drained, nats_server, options, projecting

from relight.engine.audit.models import Kind
from relight.engine.audit.report import Audit
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import Message
from relight.engine.log.topology import STREAM
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.connecting import Session, connect_session

Told = tuple[Kind, str | None, int | None, int | None]


@dataclass
class Folded:
    """A stream that was recorded and folded; no projector is at work any more."""

    nats: EmbeddedNats
    session: Session
    messages: list[Message]

    @property
    def publisher(self) -> str:
        return next(named(message)[0] for message in self.messages if ".acme." in message.subject)

    def of(self, publisher: str) -> list[Message]:
        return [message for message in self.messages if named(message)[0] == publisher]

    async def audited(self, **changes: Any) -> Audit:
        return await audited(self.nats, self.session, **changes)


@asynccontextmanager
async def folded(database: str, **changes: Any) -> AsyncIterator[Folded]:
    with stack.folder() as spools:
        async with nats_server(sync_always=False) as nats:
            await record_all(nats, spools / "spool", **changes)
            async with projecting(nats, database) as projected:
                await projected.caught_up()
            session = await connect_session(database, role=ROLE)
            try:
                yield Folded(nats, session, await messages_of(nats))
            finally:
                await session.close(timeout=2)


def changed(message: Message) -> bytes:
    """Its `source` is another."""
    return message.body.replace(b"relight://eu", b"relight://ev")


def told(found: Audit) -> list[Told]:
    return [(f.kind, f.publisher, f.first_pseq, f.last_pseq) for f in found.findings]


async def test_what_was_never_touched_has_no_finding(database: str) -> None:
    async with folded(database) as scene:
        found = await scene.audited()
        assert found.findings == ()
        assert found.missing == found.harmed == {}
        assert (found.checked.events, found.checked.publishers) == (len(scene.messages), 4)
        assert (found.unvouched_events, found.absent_sequences, found.tails_in_doubt) == (0, 0, ())
        assert found.position_holds


async def test_a_stream_that_was_put_back_with_harm_is_told_exactly(database: str) -> None:
    """Deleted, and published again by hand: with one event changed, left out, doubled, moved or made up."""
    async with folded(database) as scene:
        messages, publisher = scene.messages, scene.publisher
        one = scene.of(publisher)[6]
        at, (_, pseq) = messages.index(one), named(one)
        after = scene.of(publisher)[7]
        ruling = next(message for message in messages if message.subject.startswith("ctl."))
        last = scene.of(publisher)[-1]
        without = [message for message in messages if message is not one]
        swapped = [{one: after, after: one}.get(message, message) for message in messages]
        stranger = written(["stranger"])[0]

        def with_changed(message: Message, **changes: Any) -> list[Message]:
            return [replace(message, **changes) if found is message else found for found in messages]

        cases: list[tuple[str, list[Message], list[Told]]] = [
            (
                "data",
                with_changed(one, body=changed(one)),
                [(Kind.ALTERED, publisher, pseq, pseq)],
            ),
            ("subject", with_changed(one, subject=f"{one.subject}x"), [(Kind.ALTERED, publisher, pseq, pseq)]),
            ("syntax", with_changed(one, body=one.body[:-1] + b"]"), [(Kind.ALTERED, publisher, pseq, pseq)]),
            (
                "a ruling's subject",
                with_changed(ruling, subject=f"{ruling.subject}x"),
                [(Kind.ALTERED, *(named(ruling)[0], 1, 1))],
            ),
            ("left out", without, [(Kind.MISSING, publisher, pseq, pseq)]),
            (
                "the last left out",
                [message for message in messages if message is not last],
                [(Kind.TRUNCATED, publisher, named(last)[1], named(last)[1])],
            ),
            (
                "doubled",
                [*messages[: at + 3], replace(one, message_id=""), *messages[at + 3 :]],
                [(Kind.INSERTED, publisher, pseq, pseq)],
            ),
            ("swapped", swapped, [(Kind.REORDERED, publisher, pseq, pseq)]),
            (
                "two of one number",
                [*messages[: at + 3], replace(after, body=changed(after), message_id=""), *messages[at + 3 :]],
                [(Kind.FORKED, publisher, pseq + 1, pseq + 1)],
            ),
            (
                "a stranger's",
                [*messages[:at], Message(0, 0, *stranger), *messages[at:]],
                [(Kind.INSERTED, "stranger", 1, 1)],
            ),
            (
                "junk",
                [*messages[:at], Message(0, 0, "ev.eu.breakers.acme.failed", b"junk"), *messages[at:]],
                [(Kind.INSERTED, None, None, None)],
            ),
            (
                "healed",
                [*without, replace(one, message_id=f"{one.message_id}#h1")],
                [],
            ),
        ]
        for what, harmed, expected in cases:
            await put_again(scene.nats, harmed)
            # What was left out or put in between moves all that follows: then the tables cannot have read this stream,
            # and nothing is said of what they do not know.
            holds = [message.body for message in harmed[: len(messages)]][-1] == messages[-1].body
            found = await scene.audited()
            if what in ("a stranger's", "junk") or not found.position_holds:
                expected = [one for one in expected if one[1] != "stranger"]
            assert found.position_holds == (holds and len(harmed) >= len(messages)), what
            assert told(found) == expected, what


async def test_a_purge_is_told_and_a_recorded_trim_is_not(database: str) -> None:
    async with folded(database) as scene:
        through = len(scene.messages) // 2
        gone = [named(message) for message in scene.messages[:through]]
        async with reading(scene.nats) as client:
            await client.jetstream().purge_stream(STREAM, seq=through + 1)
        found = await scene.audited()
        assert {(f.kind, f.first_pseq) for f in found.findings} == {(Kind.MISSING, 1)}
        assert sum(f.events for f in found.findings) == through
        assert {(name, n) for name, ranges in found.missing.items() for a, b in ranges for n in range(a, b + 1)} == set(
            gone
        )
        await scene.session.execute("INSERT INTO stream_trims VALUES ('p', 1, 'a', $1, 'me', now())", through)
        assert len((await scene.audited()).findings) == len(found.findings), "it is sealed nowhere"
        for name, ranges in found.missing.items():
            message = next(m for m in scene.of(name) if named(m)[1] == ranges[0][1])
            sealed = (name, ranges[0][1], body_sha256(message.body))
            await scene.session.execute("INSERT INTO sealed_heads VALUES ('a', $1, $2, $3)", *sealed)
        trimmed = await scene.audited()
        assert trimmed.findings == ()
        assert trimmed.only_archived == found.missing
        assert (trimmed.absent_sequences, trimmed.position_holds) == (0, True)
        # One more is lost above what was trimmed: that is no trim.
        async with reading(scene.nats) as client:
            await client.jetstream().purge_stream(STREAM, seq=through + 2)
        assert told(await scene.audited())[0][0] is Kind.MISSING


async def test_block_files_that_were_edited_are_told_by_publisher_and_number(database: str) -> None:
    async with folded(database) as scene:
        harmed = at_numbers(scene.messages, scene.publisher, 5, 6, 9)
        await scene.nats.stop()
        damage.forget_index(scene.nats)
        gone = damage.take_out(scene.nats, harmed[0], harmed[1]) | damage.take_out(scene.nats, harmed[2], harmed[2])
        await scene.nats.start()
        found = await scene.audited()
        there = {message.seq for message in await messages_of(scene.nats)}
        assert gone
        lost = {named(message) for message in scene.messages if message.seq not in there}
        assert {
            (f.publisher, n) for f in found.findings for n in range(f.first_pseq or 0, (f.last_pseq or 0) + 1)
        } == lost
        assert {f.kind for f in found.findings} <= {Kind.MISSING, Kind.TRUNCATED}


async def test_on_a_rewound_store_exactly_the_events_that_are_gone_are_told(database: str, spools: Path) -> None:
    """The tail is cut, and other events take its sequences; until its publishers put the lost ones back."""
    async with nats_server(sync_always=False) as nats:
        await record_all(nats, spools)
        kept = await messages_of(nats)
        await nats.stop()
        copy = nats.folder / "copy"
        shutil.copytree(nats.store, copy)
        await nats.start()
        await record_all(nats, spools, events=12)
        lost = (await messages_of(nats))[len(kept) :]
        async with projecting(nats, database) as projected:
            await projected.caught_up()
        await nats.kill()
        shutil.rmtree(nats.store)
        shutil.copytree(copy, nats.store)
        await nats.start()
        session = await connect_session(database, role=ROLE)
        for others in (0, len(lost) + 5):
            with stack.folder() as elsewhere:
                async with Recorder(options(nats, elsewhere / "spool")) as recorder:
                    record_some(recorder, others)
                    await drained(recorder)
            found = await audited(nats, session)
            told_of = {
                (f.publisher, n) for f in found.findings for n in range(f.first_pseq or 0, (f.last_pseq or 0) + 1)
            }
            assert told_of == {named(message) for message in lost}
            assert {f.kind for f in found.findings} == {Kind.TRUNCATED}
            assert not found.position_holds
        async with connected(nats) as client:
            for message in lost:
                headers = {"Nats-Msg-Id": f"{message.message_id}#h1"}
                await client.jetstream().publish(message.subject, message.body, headers=headers)
        healed = await audited(nats, session)
        assert healed.findings == ()
        assert healed.checked.healed_copies == len(lost)
        await session.close()


async def test_under_load_there_is_no_false_finding(database: str, spools: Path) -> None:
    """Observations and rulings go on, the projector is behind, and what it has folded is trimmed while it is read."""
    async with (
        nats_server(sync_always=False) as nats,
        projecting(nats, database, batch_events=50) as projected,
        Recorder(options(nats, spools)) as one,
        Recorder(options(nats, spools, region="us")) as other,
    ):
        audits: list[Audit] = []
        load = asyncio.create_task(_load(one, other))
        trims = asyncio.create_task(_trims(projected, lambda: len(audits) >= 8))
        session = await connect_session(database, role=ROLE)
        while len(audits) < 20 or audits[-1].checked.last_seq < 1_500:
            found = await audited(nats, session)
            assert found.findings == (), f"audit {len(audits)}"
            audits.append(found)
        load.cancel()
        trims.cancel()
        await asyncio.wait([load, trims])
        assert len({found.checked.last_seq for found in audits}) > len(audits) // 2, "it went on meanwhile"
        assert any(found.checked.position_seq < found.checked.last_seq for found in audits)
        assert any(found.only_archived for found in audits)
        await session.close()


async def _load(one: Recorder, other: Recorder) -> None:
    while True:
        record_some(one, 40)
        record_some(other, 10)
        await rule(other, "api", 1)
        await asyncio.sleep(0.02)


async def _trims(projected: Projecting, begin: Callable[[], bool]) -> None:
    """As a trim goes: sealed, recorded, then made."""
    while True:
        await asyncio.sleep(0.1)
        position = projected.projector.position
        if position is None or not begin():
            continue
        async with projected.session.transaction():
            await projected.session.execute(SEAL)
            await projected.session.execute(TRIM, position.seq // 2)
        await projected.client.jetstream().purge_stream(STREAM, seq=position.seq // 2 + 1)


SEAL = """
INSERT INTO sealed_heads SELECT 'a', publisher, highest_pseq, highest_sha256 FROM publisher_heads
ON CONFLICT (publisher, archive) DO UPDATE SET pseq = excluded.pseq, sha256 = excluded.sha256
"""
TRIM = "INSERT INTO stream_trims VALUES ('p', $1, 'a', $1, 'me', now()) ON CONFLICT DO NOTHING"


async def test_a_declared_loss_is_listed_and_no_finding(database: str) -> None:
    async with folded(database) as scene:
        publisher = scene.publisher
        await put_again(scene.nats, [m for m in scene.messages if named(m) != (publisher, 4)])
        assert told(await scene.audited()) == [(Kind.MISSING, publisher, 4, 4)]
        await scene.session.execute(
            "INSERT INTO recorded_losses VALUES ('p', 1, $1, 3, 5, 'me', 'its disk burned', now())", publisher
        )
        found = await scene.audited()
        assert found.findings == ()
        assert [(loss.publisher, loss.first_pseq, loss.last_pseq) for loss in found.declared_lost] == [
            (publisher, 3, 5)
        ]
