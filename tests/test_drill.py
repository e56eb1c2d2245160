"""The load drill itself, in small: it plays through, keeps its promises, and would notice if one were broken."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import lacking
from reporting import Report
from standing import OnStream
from typer.main import get_group

from relight.engine.cli.main import app

DRILL = Path(__file__).parent / "drill"
WITHIN_S = 180.0
SMALL = {
    "--clients": 20,
    "--seconds": 3,
    "--tenants": 2,
    "--events-per-s": 200,
    "--prefill-events": 1_000,
    "--closed-clients": 4,
    "--closed-seconds": 1,
    "--restarts": 1,
}


async def test_a_small_drill_loses_doubles_and_refuses_nothing(tmp_path: Path) -> None:
    for command in ("serve", "token", "rebuild"):
        if command not in get_group(app).commands:
            lacking(f"relight {command}")
    options = [str(word) for option in SMALL.items() for word in option]
    told = tmp_path / "told.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        DRILL / "run.py",
        "load",
        "rolling",
        *options,
        "--json",
        told,
        stdout=-1,
        stderr=-2,
        env=os.environ | {"PYTHONPATH": str(DRILL.parent)},
    )
    said, _ = await asyncio.wait_for(process.communicate(), WITHIN_S)
    assert process.returncode == 0, said.decode()
    found = json.loads(told.read_text())
    sides = found["figures"]["load"]["sides"]
    assert sides["http"]["asked"] > 10 < sides["http"]["timed"]
    assert sides["bare"]["asked"] > 0
    kept = [verdict for verdict in found["verdicts"] if verdict["kept"] is not None]
    assert {verdict["phase"] for verdict in kept} == {"load", "rolling"}
    assert all(verdict["kept"] for verdict in kept)


@pytest.fixture
def drill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the drill's files be imported, as they import each other."""
    monkeypatch.syspath_prepend(DRILL)


def failure(**changes: Any) -> dict[str, Any]:
    return {"side": "http", "began": 11.0, "ended": 11.1, "cause": "?", "status": 503, "is_problem": True} | changes


@pytest.mark.parametrize(
    ("title", "failures", "kept"),
    [
        ("PostgreSQL", [failure()], True),
        ("PostgreSQL", [failure(status=500)], False),
        ("PostgreSQL", [failure(is_problem=False)], False),
        ("PostgreSQL", [failure(began=8.0, ended=8.1)], False),
        ("PostgreSQL", [failure(began=60.0, ended=60.1)], False),
        ("NATS", [failure()], False),
        ("NATS", [], True),
    ],
)
@pytest.mark.usefixtures("drill")
def test_only_a_503_problem_while_postgresql_is_away_is_forgiven(
    title: str, failures: list[dict[str, Any]], kept: bool
) -> None:
    from outage import tell_failures

    report = Report()
    met = {"failures": failures, "sides": {"http": {"failed": 1, "asked": 9}}, "none_ready_s": 0.0}
    tell_failures(report, title, met, 10.0, 40.0)
    assert (report.broken == []) == kept


def test_a_hole_and_a_repeat_in_a_publishers_numbers_are_noticed() -> None:
    stream = OnStream()
    stream.numbers |= {"whole": [1, 2, 3], "hole": [1, 3], "repeat": [1, 2, 2], "headless": [2, 3]}
    assert stream.out_of_order == ["hole", "repeat", "headless"]


@pytest.mark.usefixtures("drill")
def test_a_swap_is_as_long_as_the_longer_wait_and_an_untold_one_is_none() -> None:
    from rolling import swap_time

    assert swap_time({"took_s": 9.0, "reads_waited_s": 0.2, "writes_waited_s": 1.2}) == 1.2
    assert swap_time({"took_s": 9.0}) is None
