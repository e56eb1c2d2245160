"""A drill in small on three real regions: one lost with its disk, then one cut off; and what a verdict notices."""

import asyncio
import dataclasses
from collections import defaultdict
from pathlib import Path

import pytest
import stack

from relight.engine.app.drilling import means
from relight.engine.drill.figures import Figures
from relight.engine.drill.ledger import Kind, Ledger, Told
from relight.engine.drill.links import Links
from relight.engine.drill.plan import Plan, Scenario
from relight.engine.drill.playing import play_round
from relight.engine.drill.scene import staged
from relight.engine.drill.verdict import Promise, verdict

SMALL = Plan(scenario=Scenario.REGION_LOSS, warm_s=1, seconds=5, events_per_s=50, step_s=0.2)
SOUND = Figures(
    region="eu",
    what="killed",
    recorded=2,
    acknowledged=2,
    acknowledged_lost=(),
    spooled_lost=(),
    gone_with_disk=0,
    doubled=(),
    refused=0,
    longest_record_s=0.01,
    log_stalled_s=4,
    acknowledged_stalled_s=8,
    acknowledged_again_s={},
    spooled_meanwhile=1,
    queries_stalled_s=0.5,
    tables_stalled_s=5,
    tasks_held=1,
    tasks_first_s=6,
    tasks_last_s=7,
    tasks_submitted=1,
    tasks_unfinished=(),
    completed_twice=(),
    isolated_s=5,
    failed_over_s=6,
    returned=True,
    took_s=30,
    tables_differing=(),
)


async def test_a_region_lost_with_its_disk_and_one_cut_off_cost_nothing_that_was_acknowledged() -> None:
    with stack.folder() as home:
        async with staged(SMALL, home, means(), lambda text: None) as scene:
            wiped: defaultdict[str, list[float]] = defaultdict(list)
            lost = await play_round(scene, 2, wiped)  # every second round deletes the disk
            scene.plan = dataclasses.replace(SMALL, scenario=Scenario.LINK_CUT)
            cut = await play_round(scene, 1, wiped)
    assert "disk deleted" in lost.what
    assert lost.failed_over_s is not None
    assert lost.returned
    assert not _broken(Scenario.REGION_LOSS, lost)
    assert cut.spooled_meanwhile > 0
    assert not _broken(Scenario.LINK_CUT, cut)


def _broken(scenario: Scenario, figures: Figures) -> list[Promise]:
    """What is promised within seconds is judged by drills, which have the machine to themselves."""
    return [one for one in verdict(scenario, [figures]) if not one.held and "allowed" not in one.found]


@pytest.mark.parametrize(
    "broken",
    [
        {"acknowledged_lost": ("a",)},
        {"spooled_lost": ("a",)},
        {"doubled": ("a",)},
        {"longest_record_s": 0.5},
        {"log_stalled_s": 11.0},
        {"acknowledged_stalled_s": 11.0},
        {"queries_stalled_s": 6.0},
        {"tasks_last_s": None},
        {"tasks_last_s": 31.0},
        {"completed_twice": ("t",)},
        {"tasks_unfinished": ("t",)},
        {"tables_differing": ("fault_domains",)},
        {"failed_over_s": None},
    ],
    ids=str,
)
def test_each_promise_is_seen_to_be_broken(broken: dict[str, object]) -> None:
    assert all(one.held for one in verdict(Scenario.REGION_LOSS, [SOUND]))
    found = verdict(Scenario.REGION_LOSS, [SOUND.model_copy(update=broken)])
    assert len([one for one in found if not one.held and one.broken]) == 1


async def test_what_a_cut_direction_holds_back_arrives_when_it_is_healed() -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            await heard.put(data)
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    links = Links(("eu", "us"))
    address = await links.proxy("eu", "us", f"{host}:{port}")
    reader, writer = await asyncio.open_connection(*address.split(":"))
    try:
        writer.write(b"1")
        assert (await heard.get(), await reader.read(9)) == (b"1", b"1")
        links.cut("us", "eu")
        writer.write(b"2")
        assert await heard.get() == b"2"
        answer = asyncio.create_task(reader.read(9))
        done, _ = await asyncio.wait([answer], timeout=0.1)
        assert not done
        links.heal()
        assert await answer == b"2"
    finally:
        writer.close()
        server.close()
        await links.close()


def test_a_ledger_gives_back_what_was_told_without_its_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "eu.1.ledger"
    ledger = Ledger(path)
    ledger.write(Kind.ASKED, ["a", "b"])
    ledger.write(Kind.SPOOLED, [["a", 1]])
    ledger.write(Kind.REPLICATED, ["a"])
    ledger.close()
    with path.open("ab") as file:
        file.write(b'["replicated",1.0,["b')
    told = Told.read(tmp_path)
    assert told.asked == {"a": "eu", "b": "eu"}
    assert told.spooled == {"a": ("eu.1", 1)}
    assert set(told.replicated) == {"a"}
