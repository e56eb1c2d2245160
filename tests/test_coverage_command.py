"""`relight coverage`: what it prints, its exit codes, and what it says beside calls that were really made."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import pytest
import pytest_asyncio
import stack
from anthropic._base_client import AsyncAPIClient, SyncAPIClient
from anthropic.resources.messages import AsyncMessages
from stack import nats_server, options, projecting
from typer.testing import CliRunner, Result

from relight.engine.app.covering import seen_calls
from relight.engine.app.opening import open_relight
from relight.engine.cli.main import app
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Step
from relight.engine.guard.counting.counting import CallCounter, counting_calls
from relight.engine.guard.counting.places import UNKNOWN_PLACE
from relight.engine.guard.guarded import guarded
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.routes.fallback import Fallback
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.settings import Settings

RAW = "import anthropic\nclient = anthropic.Anthropic()\nclient.messages.create(model='m', max_tokens=1, messages=[])\n"
SAFE = (
    "import anthropic, relight\n"
    "client = relight.guarded(anthropic.Anthropic(), None)\n"
    "client.messages.create(model='m', max_tokens=1, messages=[])\n"
)


def covered(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["coverage", *map(str, arguments)], terminal_width=200)


def program(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "options", "code"),
    [
        ({"a": SAFE}, ["--fail-under", "100"], 0),
        ({"a": RAW}, [], 0),
        ({"a": RAW}, ["--fail-under", "0"], 0),
        ({"a": RAW, "b": SAFE}, ["--fail-under", "50"], 0),
        ({"a": RAW, "b": SAFE}, ["--fail-under", "50.1"], 1),
        ({"a": "def f(c):\n    c.messages.create(model=1, max_tokens=1, messages=[])\n"}, ["--fail-under", "1"], 1),
        ({"a": "print()\n"}, ["--fail-under", "100"], 0),
        ({"a": "def f(:\n"}, [], 1),
        ({}, [], 1),
        ({"a": RAW}, ["--fail-under", "101"], 2),
        ({"a": RAW}, ["--fail-over", "1"], 2),
        ({"a": RAW}, ["--config", "nowhere.toml"], 2),
    ],
)
def test_exit_codes_can_be_trusted(tmp_path: Path, files: dict[str, str], options: list[str], code: int) -> None:
    assert covered(program(tmp_path, **files), *options).exit_code == code


def test_a_path_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    assert covered(tmp_path / "nowhere").exit_code == 2
    assert covered().exit_code == 2


def test_the_report_says_what_is_unguarded_and_what_is_not_known(tmp_path: Path) -> None:
    found = covered(program(tmp_path, a=RAW, b=SAFE, broken="def f(:\n"), "--fail-under", "80")
    assert found.exit_code == 1
    text = " ".join(found.stdout.split())
    assert "50 % of 2 calls are guarded: 1 guarded, 1 not, 0 not known, in 2 files" in text
    assert "asked for: 80 %, not reached" in text
    assert "broken.py:1: Python" in text
    assert "unknown: what is called in 1 of the files" in text


def test_json_lists_all_with_reasons_and_evidence(tmp_path: Path) -> None:
    loop = "import relight, anthropic\nc = anthropic.Anthropic(middleware=[relight.Guard(None)])\nfor _ in 'ab':\n    "
    found = covered(program(tmp_path, a=RAW, b=loop + RAW.splitlines()[2].replace("client", "c")), "--json")
    document = json.loads(found.stdout)
    assert (document["percent_guarded"], document["calls"]) == (50, {"yes": 1, "no": 1, "unknown": 0})
    assert [(Path(s["path"]).name, s["line"], s["kind"], s["guarded"]) for s in document["sites"]] == [
        ("a.py", 2, "client", "no"),
        ("a.py", 3, "call", "no"),
        ("b.py", 4, "call", "yes"),
        ("b.py", 2, "client", "yes"),
    ]
    looped = document["sites"][2]
    assert (looped["priority"], looped["reasons"]) == (4, [{"circumstance": "loop", "note": "in a loop (line 3)"}])
    assert looped["warnings"][0].startswith("attempts would multiply: its own retries are on")
    assert [step["line"] for step in looped["evidence"]] == [4, 2]


def test_tests_are_listed_and_counted_only_when_asked(tmp_path: Path) -> None:
    program(tmp_path, a=SAFE, **{"tests/test_a": RAW})
    without = covered(tmp_path, "--fail-under", "100")
    assert without.exit_code == 0
    assert "1 calls in tests are listed and not counted" in " ".join(without.stdout.split())
    assert covered(tmp_path, "--fail-under", "100", "--include-tests").exit_code == 1
    (tmp_path / "pyproject.toml").write_text("[tool.relight.coverage]\ncount_tests = true\nfail_under = 100\n")
    assert covered(tmp_path).exit_code == 1
    (tmp_path / "told.toml").write_text("exclude = ['tests/**']\nfail_under = 100\n")
    assert covered(tmp_path, "--config", tmp_path / "told.toml").exit_code == 0


def test_configured_wrappers_guard_and_unknown_fields_are_refused(tmp_path: Path) -> None:
    program(tmp_path, a="from acme import llm\nllm().messages.create(model='m', max_tokens=1, messages=[])\n")
    assert covered(tmp_path, "--fail-under", "100").exit_code == 1
    (tmp_path / "pyproject.toml").write_text("[tool.relight.coverage]\nguarded_by = ['acme:llm']\n")
    assert covered(tmp_path, "--fail-under", "100").exit_code == 0
    (tmp_path / "pyproject.toml").write_text("[tool.relight.coverage]\nguards = ['acme:llm']\n")
    refused = covered(tmp_path)
    assert refused.exit_code == 2
    assert "guards is no field; remove it, or choose one of exclude" in " ".join(refused.output.split())


PROGRAM = """
import asyncio
import functools

ASK = {"model": "claude-opus-4-8", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


async def plain(client):
    await client.messages.create(**ASK)  # 9


async def gathered(client):
    await asyncio.gather(
        *[client.messages.create(**ASK) for _ in range(3)],  # 14
    )


async def streamed(client):
    async with client.messages.stream(  # 19
        **ASK,
    ) as stream:
        await stream.get_final_message()


async def awaited_later(client):
    coming = client.messages.count_tokens(model=ASK["model"], messages=ASK["messages"])  # 26
    await asyncio.sleep(0)
    await coming


async def in_a_thread(client):
    await asyncio.to_thread(functools.partial(client.messages.create, **ASK))  # 32


def listed(client):
    client.models.list()
"""


def loaded(file: Path) -> dict[str, Any]:
    """The program's functions, as if it had been imported from that file."""
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    return names


@dataclass
class Scene:
    """Servers, tables, and a model's API."""

    fake: FakeAnthropic
    settings: dict[str, str]
    recorder: Recorder

    def asynchronous(self) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self.fake.url, api_key="k", max_retries=0)

    def synchronous(self) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.fake.url, api_key="k", max_retries=0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(shared_database: str) -> AsyncIterator[Scene]:
    with stack.folder() as home:
        async with nats_server() as nats, projecting(nats, shared_database):
            settings = {
                "RELIGHT_NATS_URL": nats.url,
                "RELIGHT_DATABASE_URL": shared_database,
                "RELIGHT_HOME": str(home),
                "RELIGHT_TENANT": "acme",
            }
            with fake_anthropic_thread() as fake:
                async with Recorder(options(nats, home / "spool")) as recorder:
                    yield Scene(fake, settings, recorder)


def counts(counter: CallCounter) -> dict[tuple[str, bool], int]:
    return dict(counter._counts)


@pytest.mark.asyncio(loop_scope="module")
async def test_calls_are_counted_by_the_line_that_makes_them(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    file = program(tmp_path, **{"app/work": PROGRAM}) / "app" / "work.py"
    functions = loaded(file)
    async with counting_calls(scene.recorder) as counter:
        async with scene.asynchronous() as client:
            for name in ("plain", "gathered", "streamed", "awaited_later"):
                await functions[name](client)
        with scene.synchronous() as client:
            await functions["in_a_thread"](client)
            with suppress(anthropic.NotFoundError):
                functions["listed"](client)
        found = counts(counter)
    assert found == {
        ("app/work.py:9", False): 1,
        ("app/work.py:14", False): 3,
        ("app/work.py:19", False): 1,
        ("app/work.py:26", False): 1,
        (UNKNOWN_PLACE, False): 1,
    }


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_call_that_falls_back_to_another_client_is_counted_once_and_as_guarded(
    scene: Scene, asynchronous: bool
) -> None:
    """Found: the guard's own call of the other client was counted too, as a raw one of the same line."""
    scene.fake.play([Step(status=500)])
    policy = GuardPolicy(retries=0, breaker=None)
    ask: Any = {"model": "claude-opus-4-8", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    async with counting_calls(scene.recorder) as counter, scene.asynchronous() as client, scene.asynchronous() as other:
        with scene.synchronous() as one, scene.synchronous() as another:
            if asynchronous:
                safe = guarded(client, scene.recorder, policy, fallbacks=[Fallback(other)])
                await safe.messages.create(**ask)
            else:
                plain = guarded(one, scene.recorder, policy, fallbacks=[Fallback(another)])
                await asyncio.to_thread(plain.messages.create, **ask)
        found = counts(counter)
    assert len(scene.fake.requests) == 2
    assert [(guarded, calls) for (_, guarded), calls in found.items()] == [(True, 1)]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_sdk_is_left_as_it_was(scene: Scene) -> None:
    before = (SyncAPIClient.request, AsyncAPIClient.request, AsyncMessages.create)
    async with counting_calls(scene.recorder):
        async with counting_calls(scene.recorder):
            assert AsyncMessages.create is not before[2]
        assert AsyncAPIClient.request is not before[1], "somebody still counts"
    assert (SyncAPIClient.request, AsyncAPIClient.request, AsyncMessages.create) == before


@pytest.mark.asyncio(loop_scope="module")
async def test_calls_are_counted_while_relight_is_open_if_it_is_told_to(scene: Scene, tmp_path: Path) -> None:
    functions = loaded(program(tmp_path, **{"opened/work": PROGRAM}) / "opened" / "work.py")
    (tmp_path / "pyproject.toml").touch()
    settings = Settings.from_environment(scene.settings | {"RELIGHT_COUNT_CALLS": "true"})
    async with open_relight(settings) as r, scene.asynchronous() as client:
        await functions["plain"](client)
        await functions["plain"](r.guarded(client))

    async def counted() -> list[tuple[int, int]]:
        return [(s.guarded, s.raw) for s in await seen_calls(settings) if s.site == "opened/work.py:9"]

    await stack.until(counted, "what was counted is in the tables")
    assert await counted() == [(1, 1)]


AGENT = """
import relight

ASK = {"model": "claude-opus-4-8", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def make(Anthropic, r, **options):
    return relight.guarded(Anthropic(**options), r), Anthropic(**options)  # 8


def run(Anthropic, r, **options):
    safe, raw = make(Anthropic, r, **options)
    safe.messages.create(**ASK)  # 13
    raw.messages.create(**ASK)  # 14
    raw.messages.create(**ASK) if options.get("never") else None  # 15
    eval("raw.messages.create(**ASK)")
    sneaky = safe
    globals()["swap"](locals(), raw)
    return sneaky.messages.create(**ASK)  # 19


def main():
    from anthropic import Anthropic
    from relight import open_sync

    with open_sync() as r:
        run(Anthropic, r)
"""


def at(document: dict[str, Any], line: int) -> tuple[str, int, int]:
    [one] = [one for one in document["runtime"] if one["place"].endswith(f"agent.py:{line}")]
    return one["agreement"], one["guarded"], one["raw"]


@pytest.mark.asyncio(loop_scope="module")
async def test_run_time_and_sources_have_to_agree(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    folder = program(tmp_path, **{"agent": AGENT})
    functions = loaded(folder / "agent.py")
    began = datetime.now(UTC)

    def swap(names: dict[str, Any], raw: anthropic.Anthropic) -> None:
        """What no reader of the sources can see: the guarded client loses its Guard."""
        names["safe"]._middleware = raw._middleware
        names["safe"]._middleware_chain = raw._middleware_chain

    functions["swap"] = swap
    async with counting_calls(scene.recorder):
        await asyncio.to_thread(
            functions["run"], anthropic.Anthropic, scene.recorder, base_url=scene.fake.url, api_key="k", max_retries=0
        )
    marker = scene.recorder.record(stack.failed(1))
    await marker.reached(Ack.PROJECTED, timeout_s=20)

    async def compared(*more: str) -> "subprocess.CompletedProcess[str]":
        since = began.strftime("%Y-%m-%dT%H:%M:%S")
        command = [sys.executable, "-m", "relight.engine.cli.main", "coverage", folder, "--runtime", "--since", since]
        env = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")} | scene.settings
        return await asyncio.to_thread(
            subprocess.run, [*command, *more], env=env, capture_output=True, text=True, timeout=60
        )

    found = await compared("--json")
    assert found.returncode == 1, found.stderr
    document = json.loads(found.stdout)
    assert at(document, 13) == ("agreed", 1, 0)
    assert at(document, 14) == ("agreed", 0, 1)
    assert at(document, 15) == ("never_seen", 0, 0)
    assert at(document, 19) == ("contradicted", 0, 1)
