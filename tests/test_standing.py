"""An answer that was lost for longer than the stream remembers message ids: nothing is stored twice."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from proxy import proxied
from stack import assert_chained, connected, drained, failed, nats_server, numbers, on_stream, options, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.log import publishing
from relight.engine.log.publishing import HEADERS, framed, publish_batch
from relight.engine.log.topology import STREAM, stream_config
from relight.engine.recorder import drainer
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.spool import Spooled

FORGETS_S = 0.1
OTHERS = 25
AWAY_S = 5.5
"""Two looks long, and so short after the second that the drainer would not look again."""


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if two minutes were a tenth of a second."""
    monkeypatch.setattr(drainer, "FORGETS_S", FORGETS_S)


async def forgets(js: Any) -> None:
    """The stream, where it forgets ids as fast as it may."""
    config = stream_config()
    config.duplicate_window = FORGETS_S
    await js.update_stream(config=config)


async def stored_unanswered(nats: EmbeddedNats, spools: Path, recorder: Recorder, proxy: Any, client: Any) -> None:
    """A batch, and some of another publisher's on its subject; no answer comes back."""
    recorder.record(failed(0))
    await drained(recorder)
    js = client.jetstream(timeout=5)
    proxy.deaf = True
    for n in range(1, 101):
        recorder.record(failed(n))

    async def stored() -> bool:
        return bool((await js.stream_info(STREAM)).state.messages > 100)

    await until(stored, "the batch is stored")
    async with Recorder(options(nats, spools.with_name("other"))) as other:
        for n in range(OTHERS):
            other.record(failed(1_000 + n))
        await drained(other)
    await asyncio.sleep(2 * FORGETS_S)


@pytest.mark.usefixtures("forgetful")
async def test_a_batch_whose_answer_was_lost_for_long_is_not_stored_again(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client, proxied(nats.url) as proxy:
        await forgets(client.jetstream(timeout=5))
        async with Recorder(options(nats, spools, nats_url=proxy.url)) as recorder:
            await stored_unanswered(nats, spools, recorder, proxy, client)
            proxy.deaf = False
            proxy.cut()
            for n in range(101, 201):
                recorder.record(failed(n))
            await drained(recorder)
        messages = await on_stream(client)
        assert sorted(n for n in numbers(messages) if n < 1_000) == list(range(201))
        assert_chained(messages, recorder.publisher)


@pytest.mark.usefixtures("forgetful")
async def test_what_a_dead_process_had_stored_long_ago_is_not_stored_again_by_the_next(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client, proxied(nats.url) as proxy:
        await forgets(client.jetstream(timeout=5))
        recorder = Recorder(options(nats, spools, nats_url=proxy.url))
        recorder.start()
        await stored_unanswered(nats, spools, recorder, proxy, client)
        await asyncio.to_thread(recorder.stop, deadline_s=0.1)
        async with Recorder(options(nats, spools)) as successor:
            assert successor.publisher == recorder.publisher
            await drained(successor)
        messages = await on_stream(client)
        assert sorted(n for n in numbers(messages) if n < 1_000) == list(range(101))
        assert_chained(messages, recorder.publisher)


async def test_a_batch_stored_just_before_nats_went_away_for_long_is_not_stored_again(
    spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by `make chaos`: looks that failed for want of a connection were taken for a login that may not look."""
    monkeypatch.setattr(drainer, "FORGETS_S", 3.0)
    monkeypatch.setattr(drainer, "LOOKS", 2)
    async with nats_server() as nats, connected(nats) as client, proxied(nats.url) as proxy:
        await forgets(client.jetstream(timeout=5))
        async with Recorder(options(nats, spools, nats_url=proxy.url)) as recorder:
            await stored_unanswered(nats, spools, recorder, proxy, client)
            await nats.kill()
            proxy.deaf = False
            await until(lambda: recorder.health().failure, "the answer is missed")
            await asyncio.sleep(AWAY_S)
            await nats.start()
            await drained(recorder)
        messages = await on_stream(client)
        assert sorted(n for n in numbers(messages) if n < 1_000) == list(range(101))
        assert_chained(messages, recorder.publisher)


@pytest.mark.usefixtures("forgetful")
async def test_while_no_answer_comes_at_all_nothing_is_sent_again(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client, proxied(nats.url) as proxy:
        js = client.jetstream(timeout=5)
        await forgets(js)
        async with Recorder(options(nats, spools, nats_url=proxy.url)) as recorder:
            recorder.record(failed(0))
            await drained(recorder)
            proxy.deaf = True
            recorder.record(failed(1))
            await until(lambda: recorder.health().failure, "the answer is missed")
            await asyncio.sleep(8 * FORGETS_S)
            proxy.deaf = False
            proxy.cut()
            await drained(recorder)
        assert numbers(await on_stream(client)) == [0, 1]


@pytest.mark.usefixtures("forgetful")
async def test_a_login_that_may_not_look_publishes_all_the_same(spools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def denied(*_: Any) -> list[int]:
        raise TimeoutError("nobody answers who may not ask")

    monkeypatch.setattr(drainer, "standing", denied)
    async with nats_server() as nats, connected(nats) as client:
        await nats.kill()
        with Recorder(options(nats, spools)) as recorder:
            await recorder.record(failed(0)).reached(Ack.SPOOLED)
            await asyncio.sleep(2 * FORGETS_S)
            await nats.start()
            await drained(recorder)
        assert numbers(await on_stream(client)) == [0]


async def test_a_batch_framed_by_us_arrives_as_nats_py_would_have_sent_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "FRAMED_AT_ONCE", 3)
    async with nats_server() as nats, connected(nats) as client:
        assert hasattr(client, "_send_command"), "then batches are sent as before, and slower"
        assert hasattr(client, "_flush_pending")
        events = [Spooled(n, f"id-{n}", "ev.eu.breakers.acme.failed", b"x" * n * 100, "", 0) for n in range(1, 6)]
        last = await publish_batch(client, events)
        js = client.jetstream(timeout=5)
        found = [await js.get_msg(STREAM, seq) for seq in range(last - 4, last + 1)]
        assert [(message.subject, message.data) for message in found] == [(e.subject, e.body) for e in events]
        for number, message in enumerate(found, 1):
            assert message.headers is not None
            wanted = {**HEADERS, "Nats-Msg-Id": f"id-{number}", "Nats-Batch-Sequence": str(number)}
            assert {name: message.headers.get(name) for name in wanted} == wanted
            assert message.headers["Nats-Batch-Id"] == found[0].headers["Nats-Batch-Id"]  # type: ignore[index]
        assert framed([], "b") == b""
