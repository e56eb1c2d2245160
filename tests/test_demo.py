"""The demonstration: a whole day through real servers, and every id it shows stands on the stream."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from relight.engine.demo.report import Report, report_on
from relight.engine.demo.run import Day, scripted_day
from relight.engine.log.reader import BEGINNING, Reader
from relight.events.base import Event
from relight.events.catalog import decode_message, event_types
from relight.events.envelope import Recorded
from relight.projections.catalog import tables

# Tests that a shell runs in the background inherit that SIGINT is ignored; the command here is to be interrupted.
UNIGNORED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND = [sys.executable, "-c", f"{UNIGNORED}; from relight.engine.cli.main import main; main()", "demo"]
DEMO_S = 60.0
FOLDER = re.compile(r"/[^ ]*/relight-demo-[a-z0-9_]+")
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture
def temporary(home: Path) -> Path:
    """What is not to be touched, and the temporary folder of a user who is not root."""
    return Path(tempfile.mkdtemp(prefix="demo-", dir=home))


def environment(temporary: Path) -> dict[str, str]:
    # Not served by anybody: the demonstration must not even look there.
    yours = {"RELIGHT_NATS_URL": "nats://127.0.0.1:9", "RELIGHT_DATABASE_URL": "postgresql://127.0.0.1:9/yours"}
    return os.environ | yours | {"RELIGHT_HOME": str(temporary / "yours"), "TMPDIR": str(temporary)}


def servers_of(process: psutil.Process) -> dict[psutil.Process, Path]:
    """The servers below this process that have a demonstration's folder in their command line, and the folder."""
    found = {}
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if match := FOLDER.search(" ".join(child.cmdline())):
                found[child] = Path(match[0])
    return found


def left_behind(servers: dict[psutil.Process, Path]) -> list[object]:
    """Those that still run, and the folders that are still there; a process ends a moment after it was waited for."""
    _, alive = psutil.wait_procs(servers, timeout=5)
    return [*alive, *(folder for folder in set(servers.values()) if folder.exists())]


async def on_the_stream(day: Day) -> dict[str, Recorded[Event]]:
    found: dict[str, Recorded[Event]] = {}
    async with Reader(day.service.client, BEGINNING) as reader:
        end = (await reader.state()).last_seq
        while reader.position.seq < end:
            for message in await reader.batch(limit=10_000, linger_s=0, timeout_s=1):
                event = decode_message(message.subject, message.body, message.timestamp_ms)
                found[event.id] = event
    return found


def ids_shown(report: Report) -> set[str]:
    rows = [row for rows in (*report.queries.values(), report.timeline) for row in rows]
    assert all(UUID7.fullmatch(str(row["event_id"])) for row in rows)
    return {str(row["event_id"]) for row in rows}


async def test_a_day_fills_every_table_and_can_be_told_from_the_stream_alone(temporary: Path) -> None:
    command = subprocess.Popen(  # it is waited for in a thread
        [*COMMAND, "--json"], env=environment(temporary), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    async with scripted_day(1) as day:
        report = await report_on(day)
        stream = await on_the_stream(day)
        health = await day.service.health()
        servers = servers_of(psutil.Process())

    out, error = await asyncio.to_thread(command.communicate, timeout=DEMO_S)
    assert command.returncode == 0, error.decode()
    said: dict[str, Any] = json.loads(out)

    assert ids_shown(report) <= stream.keys()
    assert report.failures == []
    assert health.reasons == [], "no gap, no fork, no dead letter"
    happened = Counter(event.type for event in stream.values())
    of_bad_days = {f"recorder.{fact}" for fact in ("gap", "lost", "healed", "trimmed", "erased", "drained")}
    of_guards = {"decisions.calls_counted"}
    of_regions = {f"faults.{fact}" for fact in ("suspected", "trusted")}
    of_workers = {"tasks.released", "tasks.checkpointed"}
    of_fleets = {f"failover.{fact}" for fact in ("fleet_declared", "overridden", "override_ended", "receipt_closed")}
    others = of_guards | of_regions | of_workers | of_fleets
    assert event_types().keys() - happened.keys() == of_bad_days | others, (
        "every other kind of event happens on that day"
    )
    assert {event.tenant for event in stream.values()} == {"-", "acme", "globex"}
    assert {event.region for event in stream.values()} == {"eu", "us", "ap"}
    assert {event.causationid for event in stream.values()} - {None} <= stream.keys(), "whatever caused it is there too"

    assert said["scripted"] is True
    assert said["tables"] == report.tables, "the same seed is the same day"
    assert said["tables"].keys() == {table.name for table in tables()}
    assert all(said["tables"].values())
    assert said["equal"] is True
    assert said["digests"]["postgres"] == said["digests"]["memory"]
    assert {name: len(rows) for name, rows in said["queries"].items()} == {
        "breakers.open_now": 1,
        "decisions.audit": 4,
        "tasks.migrations": 6,
    }
    assert [row["action_taken"] for row in said["timeline"]][:: len(said["timeline"]) - 1] == [
        "opened",
        "postmortem_published",
    ]
    assert 0 < said["freshness_ms"]["p50"] <= said["freshness_ms"]["p99"]
    assert said["position"].split(":")[1] == str(said["seq"])
    assert len(servers) >= 3, "nats-server, and PostgreSQL with its workers"
    assert left_behind(servers) == []
    assert list(temporary.iterdir()) == []


async def test_nothing_caused_what_came_before_it() -> None:
    async with scripted_day(2) as day:
        stream = await on_the_stream(day)

    causes = [(event, stream[event.causationid]) for event in stream.values() if event.causationid]
    assert len(causes) > len(stream) / 2
    for event, cause in causes:
        assert cause.id < event.id
        assert cause.time <= event.time
        assert cause.correlationid == event.correlationid, f"{event.type} belongs to what {cause.type} began"
    opened = [cause.type for event, cause in causes if event.type == "breakers.opened"]
    assert opened == ["breakers.tripped"] * 4


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demonstration_leaves_nothing_behind(by: signal.Signals, temporary: Path) -> None:
    command = subprocess.Popen(COMMAND, env=environment(temporary), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + DEMO_S
    while len(servers := servers_of(psutil.Process(command.pid))) < 3:
        assert command.poll() is None, "it ended before its servers ran"
        assert time.monotonic() < deadline, "its servers did not start"
        time.sleep(0.02)

    command.send_signal(by)

    _, error = command.communicate(timeout=DEMO_S)
    assert command.returncode == 130, error.decode()
    assert b"Traceback" not in error
    assert left_behind(servers) == []
