"""What a damaged or rewound store has lost is named, put back from spools or an archive, and changes no table."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import cut, flip, forget_index, take_out
from healing_scene import (
    Scene,
    assert_whole,
    healed_until_whole,
    healing,
    numbers_of,
    read_links,
    record_some,
    rule,
    scene,
    seal_all,
    tables_of,
)
from nats.aio.client import Client
from stack import Projecting, connected, projecting, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.healing.known import missing_of
from relight.engine.log.numbers import Numbers, both
from relight.engine.log.topology import STREAM

Damage = Callable[[EmbeddedNats, int, Path], set[int]]
"""Of a stopped server: its last sequence, an older copy of its store; which sequences are gone."""


def flipped(nats: EmbeddedNats, last: int, older: Path) -> set[int]:
    """Read over in silence: the server's index says nothing of it."""
    gone = {3, 40, 41, 42, last - 30, last - 4, last}
    flip(nats, gone)
    return gone


def flipped_and_index_lost(nats: EmbeddedNats, last: int, older: Path) -> set[int]:
    """The server cuts off all that follows, and uses its sequences again."""
    flip(nats, {last - 30})
    forget_index(nats)
    return set(range(last - 30, last + 1))


def cut_in_the_middle(nats: EmbeddedNats, last: int, older: Path) -> set[int]:
    return cut(nats, last - 40, last - 37)


def cut_at_the_end(nats: EmbeddedNats, last: int, older: Path) -> set[int]:
    return cut(nats, last - 9, None)


def messages_taken_out(nats: EmbeddedNats, last: int, older: Path) -> set[int]:
    gone = take_out(nats, last - 50, last - 20)
    forget_index(nats)
    return gone


def put_back_to_an_older_copy(nats: EmbeddedNats, last: int, older: Path) -> set[int]:
    shutil.rmtree(nats.store)
    shutil.copytree(older, nats.store)
    return set(range(int((older / "last").read_text()) + 1, last + 1))


DAMAGES = [
    flipped_and_index_lost,
    cut_in_the_middle,
    cut_at_the_end,
    messages_taken_out,
    put_back_to_an_older_copy,
    flipped,
]
"""The last of them leaves damage behind, which a server that reads its blocks anew would cut off."""


async def last_seq(client: Client) -> int:
    return int((await client.jetstream().stream_info(STREAM)).state.last_seq)


async def copied(here: Scene) -> Path:
    """Of the store as it is now."""
    async with connected(here.nats) as client:
        last = await last_seq(client)
    await here.nats.stop()
    copy = here.nats.folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(here.nats.store, copy)
    (copy / "last").write_text(str(last))
    await here.restart()
    return copy


async def named(projected: Projecting) -> dict[str, Numbers]:
    """What was recorded as healed."""
    found: dict[str, Numbers] = {}
    for row in await projected.rows("SELECT publisher, first_pseq, last_pseq FROM recorded_heals"):
        found = both(found, {row["publisher"]: Numbers([(row["first_pseq"], row["last_pseq"])])})
    return found


async def test_damage_upon_damage_is_healed_from_spools_with_final_loss_0(database: str) -> None:
    """Each kind of it, then the last once more, on the same store: what was healed is harmed again."""
    async with scene(database) as here, projecting(here.nats, database) as projected:
        harmed: dict[str, Numbers] = {}
        for turn, damage in enumerate([*DAMAGES, DAMAGES[-1]]):
            older = await copied(here)
            for recorder in here.recorders:
                record_some(recorder, range(5_000 + 100 * turn, 5_040 + 100 * turn))
            await rule(here.recorders[1], "db", 3)
            await here.drained()
            await projected.caught_up()
            links, _ = await read_links(projected.client)
            undisturbed = await tables_of(projected.client)
            await here.nats.stop()
            harmed = both(harmed, numbers_of(links, damage(here.nats, max(links), older)))
            await here.restart()
            async with healing(here) as mender:
                await healed_until_whole(mender)
            await assert_whole(here, projected, undisturbed, links)
            await until(lambda harmed=harmed: _says(projected, harmed), "exactly what was harmed is said to be healed")


async def _says(projected: Projecting, harmed: dict[str, Numbers]) -> bool:
    return await named(projected) == harmed


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_store_is_healed_from_an_archive_where_no_spool_is_left(
    database: str, damage: Damage, tmp_path: Path
) -> None:
    async with scene(database) as here, projecting(here.nats, database) as projected:
        older = await copied(here)
        record_some(here.recorders[0], range(5_000, 5_040))
        await rule(here.recorders[1], "db", 3)
        await here.close_recorders()
        shutil.rmtree(here.spools)
        await projected.caught_up()
        async with connected(here.nats) as client:
            links, messages = await read_links(client)
        store = await seal_all(messages, tmp_path)
        undisturbed = await tables_of(projected.client)
        await here.nats.stop()
        harmed = numbers_of(links, damage(here.nats, max(links), older))
        await here.restart()
        async with healing(here, store) as mender:
            first, *_ = await healed_until_whole(mender)
        assert missing_of(first.missing) == harmed
        await assert_whole(here, projected, undisturbed, links)
