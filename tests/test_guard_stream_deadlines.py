"""Deadlines and timeouts of watched streams."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from threading import Event

import anthropic
import httpx2
import pytest
import watched
from guarding import ASK
from watched import EVENTS, GOOD, Side, Watching, framed, outcome

from relight.engine.errors import DeadlineExceeded
from relight.engine.fake.server import FakeAnthropic
from relight.engine.guard.facts import Failure
from relight.engine.guard.streams.watching import How

pytestmark = pytest.mark.asyncio(loop_scope="module")
ground, fake, side, async_side = watched.ground, watched.fake, watched.side, watched.async_side


async def test_a_read_timeout_before_the_first_delta_asks_again(side: Side, fake: FakeAnthropic) -> None:
    fake.play([GOOD.model_copy(update={"chunk_delay_s": 0.5}), GOOD])
    await side.events(watching := Watching(), timeout=0.1)
    assert [end.failure for end in watching.failed] == [Failure.TIMEOUT]
    assert isinstance(watching.failed[0].error, httpx2.ReadTimeout)
    assert watching.end.how is How.COMPLETED


async def test_no_stream_outlives_the_deadline(side: Side, fake: FakeAnthropic) -> None:
    fake.play([GOOD.model_copy(update={"chunk_delay_s": 0.02, "text": "word " * 1_000}), GOOD])
    error = await outcome(side, watching := Watching(deadline_s=0.3))
    assert isinstance(error, DeadlineExceeded)
    assert "req_fake_000000" in str(error)
    assert (watching.end.how, watching.end.failure) == (How.FAILED, Failure.DEADLINE)
    assert watching.end.delivered
    await side.message(Watching())


async def test_the_deadline_ends_the_wait_for_a_chunk(side: Side, fake: FakeAnthropic) -> None:
    fake.play([GOOD.model_copy(update={"chunk_delay_s": 1.0, "text": "word " * 1_000}), GOOD])
    started = time.monotonic()
    error = await outcome(side, watching := Watching(deadline_s=0.3))
    assert isinstance(error, DeadlineExceeded)
    assert time.monotonic() - started < 0.9
    assert (watching.end.how, watching.end.failure) == (How.FAILED, Failure.DEADLINE)
    await side.message(Watching())


@pytest.mark.parametrize("deltas", [0, 2], ids=["before the first delta", "after it"])
async def test_a_body_without_a_length_that_the_deadline_cuts_does_not_pass_for_one_that_ended(deltas: int) -> None:
    """HTTP/1.0: the end of the connection is the end of the body."""
    came = b"".join(framed(event) for event in EVENTS[: 3 + deltas])
    over = Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + came)
            over.wait(timeout=20)

    watching = Watching(again=0, deadline_s=0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = asyncio.create_task(asyncio.to_thread(serve, listener))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, middleware=[watching])
        with pytest.raises(DeadlineExceeded):
            await asyncio.to_thread(lambda: list(client.messages.create(**ASK, stream=True)))
        over.set()
        await server
    assert (watching.end.failure, watching.failed) == (Failure.DEADLINE, [])


@pytest.mark.parametrize("deltas", [0, 1], ids=["before the first delta", "after it"])
async def test_the_deadline_ends_an_async_wait_for_a_chunk_and_leaves_the_task_uncancelled(
    async_side: Side, fake: FakeAnthropic, deltas: int
) -> None:
    hanging = [framed(event) for event in EVENTS[: 3 + deltas]]

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Hanging(hanging))

    watching = Watching(deadline_s=0.1)
    error = await outcome(async_side, watching, http_client=async_side.mocked(answer))
    assert isinstance(error, DeadlineExceeded)
    assert (watching.end.how, watching.end.failure) == (How.FAILED, Failure.DEADLINE)
    assert watching.end.delivered == bool(deltas)
    assert not watching.failed
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_deadline_that_is_kept_disturbs_nobody(side: Side) -> None:
    await side.message(watching := Watching(deadline_s=30))
    assert watching.end.how is How.COMPLETED


class Hanging(httpx2.AsyncByteStream):
    """Sends these and then nothing."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        await asyncio.Event().wait()
