"""The README's examples and commands work as pasted."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from relight.engine.cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture
def reachable_home() -> Iterator[Path]:
    """A folder that PostgreSQL's user can enter when root runs the tests."""
    home = Path(tempfile.mkdtemp(prefix="relight-readme-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize(
    ("example", "said"),
    [(0, ["begun", "policy_checked", "taken", "outcome_known"]), (1, ["3 steps"])],
)
def test_the_examples_run_as_pasted(example: int, said: list[str], reachable_home: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[example]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"RELIGHT_HOME": str(reachable_home / "home")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert [line for line in said if line not in ran.stdout] == []


def test_every_command_it_names_exists() -> None:
    known = set()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        known.add(name)
        known |= {f"{name} {sub}" for sub in getattr(command, "commands", {})}
    named = set(re.findall(r"`relight ((?:event|deadletter|import|retention|token) [a-z-]+|[a-z]+)", README))
    assert named - {"engine", "open"} <= known


def test_every_make_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z]+)$|`make ([a-z]+)`", README, re.MULTILINE):
        assert re.search(rf"^{target[0] or target[1]}:", makefile, re.MULTILINE), target
