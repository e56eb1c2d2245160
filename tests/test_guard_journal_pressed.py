"""Bodies that wait for a disk that does not keep up: how many there may be, and what is left of the others."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import journaling
import orjson
import pytest
from journaling import BODY, COST, MESSAGE, Scene, attempt, ended, sha256

from relight.engine.guard.recording import weighing
from relight.engine.guard.recording.journal import Journal
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.settings import ContentPolicy

pytestmark = pytest.mark.asyncio(loop_scope="module")
scene = journaling.scene


@contextmanager
def hanging_disk(recorder: Recorder) -> Iterator[None]:
    """The writer's thread is held up meanwhile."""
    reached, on = threading.Event(), threading.Event()

    def hangs() -> None:
        reached.set()
        on.wait(20)

    assert recorder._session is not None
    recorder._session.writer.put(hangs)
    try:
        assert reached.wait(20)
        yield
    finally:
        on.set()


def pressed(scene: Scene, monkeypatch: pytest.MonkeyPatch, **how: Any) -> Journal:
    """A journal to which nothing waiting is too much already."""
    monkeypatch.setattr(weighing, "FEWEST_EVENTS", -1)
    monkeypatch.setattr(weighing, "MOST_EVENTS", -1)
    return scene.journal(**how)


@pytest.mark.parametrize(("policy", "lost"), [(ContentPolicy.DIGEST, 0), (ContentPolicy.FULL, 2)])
async def test_where_too_much_waits_bodies_are_let_go_and_all_else_is_recorded(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, policy: ContentPolicy, lost: int
) -> None:
    usual, call, body = scene.journal(), scene.call(), orjson.dumps(MESSAGE)
    usual.taken(call)
    [full] = await scene.events_of(call)
    journal, call = pressed(scene, monkeypatch, content=policy), scene.call()
    journal.taken(call)
    last = attempt(body=body)
    journal.known(ended(call), last)
    assert last.body is None
    taken, tried, _, known = await scene.events_of(call)
    dropped = {"relight.content.dropped": True} if lost else {}
    assert taken["data"]["request"] == full["data"]["request"], "the digest stays"
    assert taken["data"]["context"] == full["data"]["context"] | dropped
    assert tried["data"]["content"] == {"sha256": sha256(body), "size_bytes": len(body)}
    assert tried["data"]["state_snapshot"].items() >= dropped.items()
    assert (tried["causationid"], known["causationid"]) == (taken["id"], taken["id"])
    assert known["data"]["cost_microusd"] == COST
    assert journal.let_go == lost


async def test_what_hooks_would_leave_of_a_body_that_is_let_go_is_not_known(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def hook(kind: str, document: Any) -> Any:
        asked.append(kind)
        return document

    journal, call = pressed(scene, monkeypatch, redact=[hook]), scene.call()
    journal.taken(call)
    journal.known(ended(call), attempt(body=orjson.dumps(MESSAGE)))
    taken, tried, *_ = await scene.events_of(call)
    assert ("request" in taken["data"], "content" in tried["data"], asked) == (False, False, [])
    assert taken["data"]["context"]["relight.content.dropped"] is True
    assert journal.let_go == 2


async def test_bodies_that_wait_for_a_disk_are_limited_by_their_weight(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = BODY | {"messages": [{"role": "user", "content": "x" * 100_000}]}
    monkeypatch.setattr(weighing, "PRESSED_BYTES", 2 << 20)
    monkeypatch.setattr(weighing, "FEWEST_EVENTS", 0)
    journal = scene.journal(content=ContentPolicy.FULL)
    for _ in range(20):  # what is written tells what bodies weigh
        journal.taken(scene.call(body=heavy))
    await scene.recorder.mark().reached(Ack.SPOOLED)
    with hanging_disk(scene.recorder):
        calls = [scene.call(body=heavy) for _ in range(100)]
        for call in calls:
            journal.taken(call)
    kept = 100 - journal.let_go
    assert 10 < kept <= (2 << 20) / 90_000 * weighing.EVENTS_OF_A_BODY + 1
    [taken] = await scene.events_of(calls[-1])
    assert taken["data"]["request"]["size_bytes"] > 100_000


async def test_heavy_bodies_end_the_straight_way_of_recording_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = BODY | {"messages": [{"role": "user", "content": "x" * 100_000}]}
    monkeypatch.setattr(weighing, "PRESSED_BYTES", 2 << 20)
    monkeypatch.setattr(weighing, "FEWEST_EVENTS", 0)
    looked: list[object] = []
    put = scene.recorder.deferring(lambda fact: iter(()), looked.append)
    journal = scene.journal(content=ContentPolicy.FULL)
    for _ in range(20):
        journal.taken(scene.call(body=heavy))
    await scene.recorder.mark().reached(Ack.SPOOLED)
    with hanging_disk(scene.recorder):
        for number in range(1_000):
            put(SimpleNamespace(context=copy_context(), number=number))
    assert len(looked) > 900, "so many heavy ones may wait that each is looked at"
