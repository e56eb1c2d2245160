"""Facts that are put with their beginning and again with their end: each part is recorded once, where it was put."""

import asyncio
import os
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deferred
import pytest
from deferred import T0, ns, of
from nats.aio.client import Client
from stack import bodies, failed, on_stream, options, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.recorder.items import Made, Part
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.scope import Scope

pytestmark = pytest.mark.asyncio(loop_scope="module")
nats, client = deferred.nats, deferred.client


def begins(fact: Any) -> Iterator[Made]:
    yield Made(failed(fact.n), T0)


def ends(fact: Any) -> Iterator[Made]:
    yield Made(failed(fact.n + 1), T0)


class Puts:
    """Both parts of facts, of one recorder."""

    def __init__(self, recorder: Recorder) -> None:
        end = Part(ends)
        self.begin = recorder.deferring(begins, lambda fact: recorder.defer(begins, fact, Scope()) and None, then=end)
        self.end = recorder.ending(end, lambda fact: recorder.defer(ends, fact, Scope()) and None)


def fact(n: int) -> Any:
    return SimpleNamespace(n=n, context=copy_context())


async def test_parts_are_recorded_in_the_order_in_which_they_were_put(
    nats: EmbeddedNats, client: Client, spools: Path
) -> None:
    async with Recorder(options(nats, spools)) as recorder:
        puts, first, second = Puts(recorder), fact(0), fact(10)
        recorder.defer(begins, fact(100), Scope())  # whoever comes first has a look, the others have not
        puts.begin(first)
        puts.begin(second)
        puts.end(second)
        await recorder.mark().reached(Ack.SPOOLED)
        puts.end(first)
        assert recorder.health().refused_events == 0
    assert ns(await of(client, recorder)) == [100, 0, 10, 11, 1]


async def test_a_beginning_at_which_somebody_had_to_look_is_not_recorded_again_with_the_end(
    nats: EmbeddedNats, client: Client, spools: Path
) -> None:
    async with Recorder(options(nats, spools)) as recorder:
        puts, looked = Puts(recorder), fact(0)
        assert recorder._session is not None
        recorder._session.room.unlooked_until = 0
        puts.begin(looked)
        puts.end(looked)
        await recorder.mark().reached(Ack.SPOOLED)
    assert ns(await of(client, recorder)) == [0, 1]


async def test_what_a_parent_began_and_its_child_ends_has_its_beginning_from_the_one_and_its_end_from_the_other(
    nats: EmbeddedNats, client: Client, spools: Path
) -> None:
    def forks() -> None:
        with Recorder(options(nats, spools)) as recorder:
            puts, shared = Puts(recorder), fact(1_000)
            recorder.defer(begins, fact(2_000), Scope())
            puts.begin(shared)  # and it waits still
            child = os.fork()
            if child == 0:
                recorder.defer(begins, fact(3_000), Scope())
                puts.end(shared)
                recorder.stop()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            publishers.append(recorder.publisher)

    publishers: list[str] = []
    await asyncio.to_thread(forks)

    async def found() -> dict[int, bool]:
        """Which of them, and whether the parent recorded it."""
        messages = [body for body in bodies(await on_stream(client)) if body["type"] == "breakers.failed"]
        return {
            body["data"]["details"]["n"]: body["publisher"] == publishers[0]
            for body in messages
            if body["data"]["details"]["n"] >= 1_000
        }

    async def all_there() -> bool:
        return len(await found()) == 4

    await until(all_there, "both have recorded")
    assert await found() == {2_000: True, 1_000: True, 3_000: False, 1_001: False}
