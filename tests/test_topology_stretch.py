"""A stretch on this machine, as a person runs it: one command, a process for each region, real servers."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import stack
from places import temporary

import relight
from relight.engine.app.topologies import apply_topology, plan_topology
from relight.engine.health.asking import fetch_health
from relight.engine.log.topology import close, connect
from relight.engine.recorder.receipts import Ack
from relight.engine.settings import Settings
from relight.engine.topology.differences import Subject

START_S = 90.0
EVENTS = 200


@dataclass
class Stretch:
    home: Path
    process: "subprocess.Popen[str]"
    said: dict[str, Any]
    took_s: float

    def relight(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "relight.engine.cli.main", *arguments],
            env=_environment(self.home) | {"RELIGHT_TOPOLOGY": "stretch"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def announced(self, region: str) -> dict[str, Any] | None:
        """What the region's process tells now; another one after it was started again."""
        try:
            found: dict[str, Any] = json.loads((self.home / "regions" / region / "up.json").read_text())
        except FileNotFoundError:
            return None
        return found


def _environment(home: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    return plain | {"RELIGHT_HOME": str(home)}


@pytest.fixture(scope="module")
def stretch() -> Iterator[Stretch]:
    folder = Path(tempfile.mkdtemp(prefix="relight-stretch-", dir=temporary()))
    folder.chmod(0o755)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "relight.engine.cli.main", "up", "--topology", "stretch", "--json"],
        env=_environment(folder / "home"),
        stdout=subprocess.PIPE,
        stderr=(folder / "said").open("w"),
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if line == "}\n":
                break
        assert printed, (folder / "said").read_text()
        yield Stretch(folder / "home", process, json.loads(printed), time.monotonic() - began)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


async def test_every_region_is_up_within_seconds_and_all_its_parts_run(stretch: Stretch) -> None:
    assert stretch.took_s < START_S
    assert list(stretch.said["regions"]) == ["eu", "us", "ap"]
    for region, up in stretch.said["regions"].items():

        async def healthy(url: str = up["health_url"]) -> bool:
            checks = [check for check in (await fetch_health(url)).checks if check.component == "region"]
            return len(checks) >= 10 and all(check.observed == "runs" for check in checks)

        await stack.until(healthy, f"all parts of {region} run")
        first = up["nats_url"].split(",")[0]
        assert len(up["nats_url"].split(",")) == 3
        client = await connect(first, name="relight test")
        assert client.connected_server_version is not None
        await close(client)


async def test_stream_and_contents_have_a_copy_in_each_region(stretch: Stretch) -> None:
    client = await connect(stretch.said["regions"]["us"]["nats_url"], name="relight test")
    for stream in ("EV", "OBJ_content"):
        info = await client.jetstream().stream_info(stream)
        assert info.config.num_replicas == 3
        assert info.cluster is not None
        assert {info.cluster.leader, *(peer.name for peer in info.cluster.replicas or [])} == {"eu", "us", "ap"}
    await close(client)


def test_what_is_declared_is_not_declared_again(stretch: Stretch) -> None:
    ran = stretch.relight("topology", "apply", "--json")
    assert (ran.returncode, json.loads(ran.stdout)) == (0, {"applied": [], "left": []}), ran.stderr


async def test_another_topology_differs_and_is_applied(stretch: Stretch, tmp_path: Path) -> None:
    path, settings = tmp_path / "other.toml", Settings(home=stretch.home)
    path.write_text(
        '[fleet]\nkind = "stretch"\n[regions.eu]\n[regions.us]\n[regions.ap]\n'
        '[[queues]]\nname = "refunds"\nprimary = "us"\nreplicas = ["eu", "ap"]\n'
    )
    differs = await plan_topology(settings, str(path))
    assert [one.about for one in differs] == [Subject.FLEET, Subject.QUEUE]
    assert await apply_topology(settings, str(path), by="test") == differs
    assert await plan_topology(settings, str(path)) == []
    assert [one.about for one in await apply_topology(settings, "stretch", by="test")] == [Subject.FLEET]


async def test_a_server_that_is_killed_takes_no_acknowledged_event_with_it(stretch: Stretch) -> None:
    before = stretch.announced("eu")
    assert before is not None
    async with relight.open(home=stretch.home, topology="stretch", region="us") as r:
        receipts = [r.record(stack.failed(n)) for n in range(EVENTS)]
        await asyncio.gather(*(receipt.reached(Ack.REPLICATED) for receipt in receipts))
        os.kill(before["pids"]["nats"], signal.SIGKILL)
        more = [r.record(stack.failed(n)) for n in range(EVENTS, 2 * EVENTS)]
        await asyncio.gather(*(receipt.reached(Ack.REPLICATED, timeout_s=60) for receipt in more))
    client = await connect(stretch.said["regions"]["ap"]["nats_url"], name="relight test")
    found = stack.numbers(await stack.on_stream(client))
    assert found == list(range(2 * EVENTS))
    await close(client)

    def again() -> bool:
        after = stretch.announced("eu")
        return after is not None and after["pid"] != before["pid"]

    await stack.until(again, "the region is started again", within_s=60)
    said = (stretch.home.parent / "said").read_text()
    assert "region eu ended by itself" in said
    assert "it is started again" in said


async def test_status_compares_all_copies_and_tables(stretch: Stretch) -> None:
    def whole() -> dict[str, Any] | None:
        found: dict[str, Any] = json.loads(stretch.relight("topology", "status", "--json").stdout)
        caught_up = all(one["behind"] == 0 for one in (*found["copies"], *found["tables"]))
        return found if caught_up and not found["troubles"] else None

    found = await stack.until(whole, "nothing is the matter", within_s=60)
    assert found["proven"]
    assert {one["region"] for one in found["tables"]} == {"eu", "us", "ap"}
    lasts = [one["last"] for one in found["copies"]]
    assert lasts[0]["us"] is not None
    assert lasts[0]["rulings"] is not None
    assert all(last == lasts[0] for last in lasts)


def test_all_regions_end_in_order_with_the_command(stretch: Stretch) -> None:
    pids = [up["pid"] for up in map(stretch.announced, ("eu", "us", "ap")) if up is not None]
    stretch.process.send_signal(signal.SIGINT)
    assert stretch.process.wait(60) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert "all regions are down" in (stretch.home.parent / "said").read_text()
