"""The README's examples and commands work as pasted."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import temporary
from typer.main import get_command

from relight.engine.cli.main import app
from relight.engine.fake.server import fake_anthropic_thread
from relight.engine.fake.steps import Step
from relight.engine.topology.loading import parse_topology

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
REGIONS = ("deploy/regions.md", "deploy/runbooks.md")


@pytest.fixture
def reachable_home() -> Iterator[Path]:
    """A folder that PostgreSQL's user can enter when root runs the tests."""
    home = Path(tempfile.mkdtemp(prefix="relight-readme-", dir=temporary()))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize(
    ("example", "said"),
    [(0, ["begun", "policy_checked", "taken", "outcome_known"]), (1, ["3 steps"]), (2, ["end_turn"])],
)
def test_the_examples_run_as_pasted(example: int, said: list[str], reachable_home: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[example]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    with fake_anthropic_thread([Step(status=529)]) as fake:
        told = {"RELIGHT_HOME": str(reachable_home / "home"), "ANTHROPIC_BASE_URL": fake.url, "ANTHROPIC_API_KEY": "k"}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environment | told, capture_output=True, text=True, timeout=60
        )
    assert ran.returncode == 0, ran.stderr
    assert [line for line in said if line not in ran.stdout] == []


def test_the_worker_of_the_page_on_regions_runs_as_pasted(reachable_home: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / REGIONS[0]).read_text(), re.DOTALL)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    told = {"RELIGHT_HOME": str(reachable_home / "home")}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment | told, capture_output=True, text=True, timeout=90
    )
    assert (ran.returncode, ran.stdout) == (0, "t-42 is completed\n"), ran.stderr


def test_the_topology_of_the_page_on_regions_is_sound() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / REGIONS[0]).read_text(), re.DOTALL)
    topology = parse_topology(text)
    stated = tomllib.loads(text)
    assert set(stated["fleet"]) == set(type(topology.fleet).model_fields)
    assert set(stated["regions"]["eu"]) == set(type(topology.regions["eu"]).model_fields)
    assert set(stated["policies"][0]) == set(type(topology.policies[0]).model_fields)
    assert set(stated["queues"][0]) == set(type(topology.queues[0]).model_fields)


def test_the_request_over_http_works_as_pasted(reachable_home: Path) -> None:
    """But for the port, which may be taken here, and the curl, for which any client will do."""
    up, asked = re.findall(r"```sh\n(RELIGHT_HTTP_PORT=8080 relight up|TOKEN=.*?)\n```", README, re.DOTALL)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    environment = plain | {"RELIGHT_HOME": str(reachable_home / "home")}
    relight = f"{sys.executable} -m relight.engine.cli.main"
    command = up.replace("=8080", "=0").replace("relight up", f"exec {relight} up --json")
    served = subprocess.Popen(["sh", "-c", command], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        printed = "".join(iter(served.stdout.readline, "}\n")) + "}"
        url = json.loads(printed)["http_url"]
        curl = f"curl() {{ {sys.executable} -c '{CURL}' \"$@\"; }}\n"
        script = curl + asked.replace("$(relight ", f"$({relight} ").replace("http://127.0.0.1:8080", url)
        answered = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
        assert answered.returncode == 0, answered.stderr
        assert json.loads(answered.stdout)["query"] == "decisions.by_outcome"
    finally:
        served.terminate()
        served.wait(30)
        assert served.stdout is not None
        served.stdout.close()


CURL = (
    'import sys, urllib.request as u; _, _, header, url = sys.argv; name, _, value = header.partition(": "); '
    "print(u.urlopen(u.Request(url, headers={name: value})).read().decode())"
)
"""Stands in where curl is not installed; its arguments are -H, the header and the address."""


def commands() -> dict[str, set[str]]:
    """Every command, with its options."""
    known: dict[str, set[str]] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        for path, part in walk(name, command):
            known[path] = {option for parameter in part.params for option in parameter.opts}
    return known


def walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, part in getattr(command, "commands", {}).items():
        yield from walk(f"{path} {name}", part)


@pytest.mark.parametrize(
    "page", ["README.md", "deploy/README.md", "deploy/recording.md", "deploy/recipes.md", *REGIONS]
)
def test_every_command_it_names_exists(page: str) -> None:
    known, text = commands(), (ROOT / page).read_text()
    groups = "|".join(sorted({path.partition(" ")[0] for path in known if " " in path} - {"archive"}))
    named = set(re.findall(rf"`relight ((?:{groups}) [a-z-]+|[a-z-]+)", text))
    assert named - {"engine", "open"} <= known.keys()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in re.findall(r"^(?:[A-Z_]+=\S+ )*relight (.*?)(?:\s#.*)?$", block, re.MULTILINE):
            words = [word for word in line.split() if re.fullmatch(r"[a-z-]+", word)]
            path = max((" ".join(words[:n]) for n in (1, 2, 3) if " ".join(words[:n]) in known), key=len)
            assert set(re.findall(r"\s(--[a-z-]+)", line)) <= known[path] | {"--help"}, line


def test_every_make_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z]+)$|`make ([a-z]+)`", README, re.MULTILINE):
        assert re.search(rf"^{target[0] or target[1]}:", makefile, re.MULTILINE), target
