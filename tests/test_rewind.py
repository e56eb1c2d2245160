"""A stream whose store was put back to an older copy: noticed, read again, and nothing that survived is missed."""

import shutil
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import stack
from folding import event_id
from stack import Projecting, connected, encoded, failed, nats_server, on_stream, projecting, until

from relight.engine.clock import Clock
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.log.reader import Anchor
from relight.engine.tables.positions import (
    BEGINNING,
    Position,
    _drop_anchor,
    load_anchors,
    load_position,
    move_position,
    rewind_position,
)

CLOCK = Clock()


async def publish(nats: EmbeddedNats, numbers: range) -> None:
    """Each by a publisher of its own, so that nothing but the position can tell what is missing."""
    async with connected(nats) as client:
        js = client.jetstream()
        for n in numbers:
            subject, body = encoded(
                failed(n), id=event_id(CLOCK.now_us() // 1_000, n), time=CLOCK.now(), publisher=f"p{n}"
            )
            await js.publish(subject, body)


async def put_back(nats: EmbeddedNats, copy: Path) -> None:
    """A killed server starts again with the older copy of its store."""
    await nats.kill()
    shutil.rmtree(nats.store)
    shutil.copytree(copy, nats.store)
    await nats.start()


async def assert_all_survivors_are_there(projected: Projecting, lost: range) -> None:
    await projected.caught_up()
    survived = set(stack.numbers(await on_stream(projected.client)))
    assert not survived & set(lost)
    there = await projected.rows("SELECT (details->>'n')::int AS n FROM circuit_breaker_events")
    # What was projected before it was lost stays; everything that survived is there.
    assert {row["n"] for row in there} == survived | set(lost)
    assert (await load_position(projected.session)).incarnation == 2
    assert projected.projector.position is not None
    assert projected.projector.position.incarnation == 2


@pytest.mark.parametrize("batch_events", [1, 7, 10_000])
async def test_a_projector_that_runs_through_a_rewind_misses_nothing(database: str, batch_events: int) -> None:
    async with nats_server(sync_always=False) as nats:
        await publish(nats, range(1, 901))
        await nats.stop()
        copy = nats.folder / "copy"
        shutil.copytree(nats.store, copy)
        await nats.start()
        async with projecting(nats, database, batch_events=batch_events) as projected:
            await publish(nats, range(901, 1_001))
            await projected.caught_up()
            await put_back(nats, copy)
            await publish(nats, range(1_001, 1_151))
            await until(lambda: projected.client.is_connected)
            await until(lambda: _incarnation(projected, 2), "the rewind is noticed")
            await assert_all_survivors_are_there(projected, range(901, 1_001))


async def _incarnation(projected: Projecting, number: int) -> bool:
    return (await load_position(projected.session)).incarnation == number


@pytest.mark.parametrize("new", [50, 150])
async def test_a_projector_that_starts_after_a_rewind_misses_nothing(database: str, new: int) -> None:
    """With 50 new ones the stream is shorter than the position, with 150 it has grown past it."""
    async with nats_server(sync_always=False) as nats:
        await publish(nats, range(1, 901))
        await nats.stop()
        copy = nats.folder / "copy"
        shutil.copytree(nats.store, copy)
        await nats.start()
        await publish(nats, range(901, 1_001))
        async with projecting(nats, database, batch_events=100) as projected:
            await projected.caught_up()
        await put_back(nats, copy)
        await publish(nats, range(1_001, 1_001 + new))
        async with projecting(nats, database) as projected:
            await until(lambda: _incarnation(projected, 2), "the rewind is noticed")
            await assert_all_survivors_are_there(projected, range(901, 1_001))
            rows = await projected.rows("SELECT seq FROM projection_anchors")
            assert all(row["seq"] <= 900 + new for row in rows)


async def test_a_restart_without_a_rewind_is_none(database: str) -> None:
    async with nats_server() as nats:
        await publish(nats, range(1, 101))
        async with projecting(nats, database) as projected:
            await projected.caught_up()
            await nats.kill()
            await nats.start()
            await publish(nats, range(101, 201))
            await projected.caught_up()
            assert (await load_position(projected.session)).incarnation == 1


@pytest.mark.parametrize("step", [1, 2])
async def test_anchors_thin_out_and_one_is_always_old_enough(database: str, step: int) -> None:
    """1e5 moves, `step` sequences each. Whatever was lost, an anchor lies before it, and not too far."""
    connection = await asyncpg.connect(database)
    async with connection.transaction():
        held = await load_position(connection)
        assert held == Position(1, BEGINNING)
        for seq in range(step, step * 100_000 + 1, step):
            await _drop_anchor(connection, seq - step, Anchor(seq, f"sha of {seq}"))
            if seq % (9_973 * step) == 0:
                await _assert_reaches_back(connection, seq, step)
        await _assert_reaches_back(connection, seq, step)
        held = await move_position(connection, held, Anchor(seq + 1, "x"))
        moved = await rewind_position(connection, held, (await load_anchors(connection))[3])
        assert (moved.incarnation, await load_position(connection)) == (2, moved)
        assert max(anchor.seq for anchor in await load_anchors(connection)) <= moved.seq
    await connection.close()


async def _assert_reaches_back(connection: Any, seq: int, step: int) -> None:
    anchors = await load_anchors(connection)
    assert len(anchors) <= 30
    assert anchors[-1] == BEGINNING
    assert anchors == sorted(anchors, key=lambda anchor: -anchor.seq)
    lost = 1
    while lost < seq:
        begin_again = next(anchor.seq for anchor in anchors if anchor.seq <= seq - lost)
        assert begin_again == 0 or seq - begin_again <= 64 * max(lost, 16, step)
        lost *= 2


async def test_two_projectors_cannot_both_rewind(database: str) -> None:
    connection = await asyncpg.connect(database)
    held = await move_position(connection, await load_position(connection), Anchor(500, "x"))
    await rewind_position(connection, held, BEGINNING)
    with pytest.raises(stack.Fenced):
        await rewind_position(connection, held, BEGINNING)
    assert await load_position(connection) == Position(2, BEGINNING)
    await connection.close()
