"""Importing logs of agents' failed runs, on real servers: each step, the mistake, and nothing twice."""

import asyncio
import hashlib
import itertools
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from importing import IMPORT_S, Import, World, a_world
from stack import assert_chained, on_stream, until

from relight.engine import scope
from relight.engine.app.connections import clock
from relight.engine.errors import ImportRefused
from relight.engine.importers.agent_log import AGENT_LOG
from relight.engine.importers.azure_llm import AZURE_LLM
from relight.engine.importers.identity import Fact, Format, Identity, Malformed, Owner
from relight.engine.importers.importing import ImportedFile, import_file
from relight.engine.importers.scanning import Scan, scan
from relight.engine.log.content import fetch_content
from relight.engine.log.control import ControlLog
from relight.engine.options import recorder_options
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.settings import Settings
from relight.events.base import Control
from relight.events.envelope import data_json
from relight.events.tasks import TaskSubmitted
from relight.events.values import Content

RUNS, RUN_STEPS = 20, 6
ACME = Owner(tenant="acme", region="local")
SETTINGS = Settings(home=Path("/nonexistent"), tenant="acme")
STEPS = (
    {"content": "Which day was it?", "role": "human"},
    {"content": 'I shall ask.\n\0"\U0001f525', "role": "Orchestrator (thought)"},
    {"content": "Ask the web.", "role": "Orchestrator (-> WebSurfer)"},
    {"content": "", "role": "WebSurfer"},
    {"content": "Tuesday", "role": "assistant", "name": "Calendar_Expert"},
    {"content": "Tuesday", "role": "user", "name": "Checker"},
)
TURNS = (("human", [0]), ("Orchestrator", [1, 2]), ("WebSurfer", [3]), ("Calendar_Expert", [4]), ("Checker", [5]))
MISTAKE = {"mistake_agent": "Orchestrator", "mistake_step": "2", "mistake_reason": "It was in the file."}


def document(**changes: object) -> dict[str, Any]:
    """A run as the data set has them."""
    return {"question": "Which day was it?", "question_ID": "q-1", "history": list(STEPS), **MISTAKE, **changes}


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in document().items() if key not in keys}


def with_step(**changes: object) -> dict[str, Any]:
    return document(history=[*STEPS[:2], {**STEPS[2], **changes}, *STEPS[3:]])


def write(path: Path, content: object) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def many(folder: Path, count: int) -> list[Path]:
    """Runs that differ, with nothing but turns of one step."""

    def steps(run: int) -> list[dict[str, str]]:
        return [{"content": f"{run} {'much ' * 500}{n}", "role": f"agent {n % 3}"} for n in range(RUN_STEPS)]

    return [
        write(
            folder / f"{run}.json", document(history=steps(run), mistake_agent="agent 1", mistake_step=run % RUN_STEPS)
        )
        for run in range(count)
    ]


@pytest_asyncio.fixture
async def world(home: Path, database: str) -> AsyncIterator[World]:
    async with a_world("agent-log", home, database) as world:
        yield world


async def in_process(world: World, found: Scan) -> ImportedFile:
    options = recorder_options(world.servers, SETTINGS)
    return await import_file(
        found, client=world.service.client, options=options, clock=clock(), advanced=lambda rows: None
    )


async def contents(world: World) -> dict[str, int]:
    """What the content store holds: by name, the number of messages that say so."""
    info = await world.service.client.jetstream().stream_info("OBJ_content", subjects_filter="$O.content.M.>")
    return info.state.subjects or {}


async def test_a_run_is_a_failed_task_and_each_step_a_checkpoint_of_its_agents_decision(
    world: World, tmp_path: Path
) -> None:
    done = await world.imports(write(tmp_path / "run.json", document()))

    assert done.exit_code == 0, done.error
    [said] = done.report["files"]
    assert (said["rows"], said["imported"], said["already"], done.report["runs"]) == (1, 1, 0, 1)
    key = said["key"]
    described = "Orchestrator made the decisive mistake at step 2: It was in the file."
    [task] = await world.asks("tasks.by_status", status="failed")
    assert (task["task"], task["status_reason"], task["owner"], task["queue"]) == (key, described, None, None)
    decisions = await world.asks("decisions.of_task", task=key)
    assert [(one["decision"], one["agent"]) for one in decisions] == [
        (f"{key}-turn-{n}", agent) for n, (agent, _) in enumerate(TURNS)
    ]
    assert [one["outcome"] for one in decisions] == ["unknown", "failure", "unknown", "unknown", "unknown"]
    assert [one["error_class"] for one in decisions] == [None, "annotated_mistake", None, None, None]
    js = world.service.client.jetstream()
    for one, (agent, numbers) in zip(decisions, TURNS, strict=True):
        begun, *steps, _ = await world.asks("decisions.audit", decision=one["decision"])
        assert begun["state_snapshot"]["question_id"] == "q-1"
        assert begun["state_snapshot"]["time_known"] is False
        question = Content.model_validate(begun["state_snapshot"]["question"])
        assert await fetch_content(js, "acme", question) == b"Which day was it?"
        assert [step["checkpoint_type"] for step in steps] == ["step"] * len(numbers)
        for step, number in zip(steps, numbers, strict=True):
            state = dict(step["state_snapshot"])
            mistake = state.pop("mistake", None)
            assert state == {"step": number, "agent": agent, "role": STEPS[number]["role"], "time_known": False}
            told = {"agent": "Orchestrator", "reason": "It was in the file.", "type": None}
            assert mistake == (told if number == 2 else None)
            text = STEPS[number]["content"].encode()
            held = Content(sha256=step["content_sha256"], size_bytes=len(text))
            assert await fetch_content(js, "acme", held) == text
    [incident] = await world.asks("incidents.open_now")
    assert incident["incident"] == f"{key}-mistake"
    assert incident["incident_name"] == f"mistake at step 2 of {key}"
    assert (incident["severity"], incident["affected_domains"]) == ("medium", (f"task:{key}",))
    assert (incident["description"], incident["status_by"]) == (described, "agent-log annotation")
    await world.digests()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mistake_agent": "WebSurfer"}, "but step 2 was spoken by Orchestrator (-> WebSurfer).]"),
        ({"mistake_agent": "Checker", "mistake_step": 4}, "but step 4 was spoken by Calendar_Expert.]"),
        ({"mistake_agent": "FileSurfer", "mistake_step": "3"}, "but step 3 was spoken by WebSurfer.]"),
    ],
)
def test_where_another_agent_spoke_than_the_annotation_names_both_are_told(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    [events] = told(write(tmp_path / "run.json", document(**changes)))

    by_type = {event.TYPE: event for event in events}
    assert by_type["incidents.opened"].description.startswith(f"{changes['mistake_agent']} made the decisive mistake")
    assert by_type["incidents.opened"].description.endswith(said)
    assert by_type["tasks.failed"].reason == by_type["incidents.opened"].description
    [failure] = [e for e in events if e.TYPE == "decisions.outcome_known" and e.outcome == "failure"]
    [marked] = [e for e in events if e.TYPE == "decisions.checkpointed" and "mistake" in e.state_snapshot]
    assert marked.decision == failure.decision
    assert marked.state_snapshot["step"] == int(str(changes.get("mistake_step", "2")))
    assert marked.state_snapshot["mistake"]["agent"] == changes["mistake_agent"]


def told(path: Path) -> list[list[Any]]:
    """Each run's events."""
    identity = Identity(AGENT_LOG, ACME)
    entries = [entry for entry in AGENT_LOG.read(path, datetime.now(UTC)) if not isinstance(entry, Malformed)]
    return [[fact.event for _, fact in identity.facts(entry)] for entry in entries]


MALFORMED: dict[str, tuple[object, str]] = {
    "nothing": (b"", "empty"),
    "a mark": (b"\xef\xbb\xbf", "empty"),
    "NUL": (b"\0" * 1_000, "no JSON ("),
    "no UTF-8": (b'{"history": "\xff"}', "no UTF-8 (invalid start byte at byte 13)"),
    "UTF-16": (json.dumps(document()).encode("utf-16"), "no UTF-8"),
    "half": (json.dumps(document()).encode()[:-9], "no JSON ("),
    "a surrogate": (json.dumps(with_step(content="\ud800")).encode(), "no JSON ("),
    "deep": (b"[" * 100_000, "no JSON ("),
    "a list": ([document()], "no JSON object but a list"),
    "huge": (b" " * ((64 << 20) + 1), "more than 64 MiB"),
    "no history": (without("history"), "history: Field required"),
    "no steps": (document(history=[]), "history: List should have at least 1 item"),
    "text for history": (document(history="?"), "history: Input should be a valid list"),
    "a step of text": (document(history=["?"]), "history[0]: Input should be a valid dictionary"),
    "no content": (document(history=[{"role": "a"}]), "history[0].content: Field required"),
    "content null": (with_step(content=None), "history[2].content: Input should be a valid string"),
    "content in parts": (with_step(content=[{"text": "?"}]), "history[2].content: Input should be a valid string"),
    "no role": (document(history=[{"content": "?"}]), "history[0].role: Field required"),
    "empty role": (with_step(role=""), "history[2].role: String should have at least 1 character"),
    "empty name": (with_step(name=""), "history[2].name: String should have at least 1 character"),
    "long name": (with_step(name="a" * 201), "history[2].name: String should have at most 200 characters"),
    "long in UTF-8": (with_step(name="\U0001f525" * 51), "history[2].name: longer than 200 bytes in UTF-8"),
    "NUL in a name": (with_step(name="a\0"), "history[2].name: String should match pattern"),
    "no agent": (without("mistake_agent"), "mistake_agent: Field required"),
    "empty agent": (document(mistake_agent=""), "mistake_agent: String should have at least 1 character"),
    "no annotation": (without(*MISTAKE), "mistake_agent: Field required; and 2 more faults"),
    "no step": (without("mistake_step"), "mistake_step: Field required"),
    "a word for step": (document(mistake_step="three"), "mistake_step: neither a step's number nor one in text"),
    "a sign": (document(mistake_step="-1"), "mistake_step: neither a step's number nor one in text"),
    "negative": (document(mistake_step=-1), "mistake_step: Input should be greater than or equal to 0"),
    "a fraction": (document(mistake_step=2.5), "mistake_step: neither a step's number nor one in text"),
    "true": (document(mistake_step=True), "mistake_step: neither a step's number nor one in text"),
    "step null": (document(mistake_step=None), "mistake_step: neither a step's number nor one in text"),
    "beyond": (document(mistake_step="6"), "mistake_step: 6 is beyond the last step, 5"),
    "far beyond": (document(mistake_step=10**30), "mistake_step: neither a step's number nor one in text"),
    "NUL in the reason": (document(mistake_reason="a\0"), "mistake_reason: String should match pattern"),
    "no reason": (document(mistake_reason=""), "mistake_reason: String should have at least 1 character"),
    "a long reason": (document(mistake_reason="a" * 10_001), "mistake_reason: String should have at most 10000"),
    "it came out right": (document(is_correct=True), "is_correct: true, but a run that came out right has no decisive"),
}


@pytest.mark.parametrize(("content", "said"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_run_is_said_in_a_sentence(content: object, said: str, tmp_path: Path) -> None:
    [found] = AGENT_LOG.read(write(tmp_path / "run.json", content), datetime.now(UTC))
    assert isinstance(found, Malformed)
    assert found.line is None
    assert found.reason.startswith(said)
    assert found.reason.isprintable()
    assert len(found.reason) < 200


@pytest.mark.parametrize(
    "content",
    [
        without("question", "question_ID"),
        document(question=None, question_ID=None, mistake_type=None, is_correct=None),
        document(is_correct=False, is_corrected=False, level=3, system_prompt={"a": "b"}, labels=[None], more={"x": 1}),
        document(question="NUL \0 is content", mistake_type="wrong_reasoning"),
        with_step(name=None, tool_calls=[1]),
        with_step(role="\U0001f525" * 50),
        document(mistake_agent="agent: " + "a" * 193, mistake_reason="a" * 10_000),
        document(mistake_step="000002"),
    ],
)
def test_missing_and_other_keys_are_no_fault(content: object, tmp_path: Path) -> None:
    [events] = told(write(tmp_path / "run.json", content))
    assert [event.TYPE for event in events].count("decisions.checkpointed") == len(STEPS)


async def test_malformed_files_are_reported_and_left_out_and_all_others_imported(world: World, tmp_path: Path) -> None:
    kept = [(content, said) for name, (content, said) in MALFORMED.items() if name != "huge"]
    bad = [write(tmp_path / f"{n}.json", content) for n, (content, _) in enumerate(kept)]
    good = [write(tmp_path / f"good-{n}.json", document(question_ID=f"q-{n}")) for n in range(2)]

    refused = await world.imports(good[0], *bad, good[1], "--strict")
    assert refused.exit_code == 1
    assert f"as {len(bad)} files are malformed, the first {bad[0]}: empty; correct them" in refused.error
    assert (await world.stream()).messages == 0

    done = await world.imports(good[0], *bad, good[1])
    assert done.exit_code == 0, done.error
    said = {file["file"]: file for file in done.report["files"]}
    assert [said[str(file)]["imported"] for file in good] == [1, 1]
    for file, (_, reason) in zip(bad, kept, strict=True):
        [one] = said[str(file)]["malformed"]
        assert one["line"] is None
        assert one["reason"].startswith(reason)
        assert (said[str(file)]["rows"], said[str(file)]["malformed_lines"], said[str(file)]["key"]) == (0, 1, None)
    assert done.report["runs"] == len(await world.asks("incidents.open_now")) == 2

    out, error = await asyncio.to_thread(world.start(good[0], bad[0]).communicate, timeout=IMPORT_S)
    key = said[str(good[0])]["key"]
    assert out.decode().splitlines() == [
        f"{good[0]}: already imported as {key}: nothing added",
        f"{bad[0]}: no runs in it",
        "1 runs in all",
    ]
    assert error.decode() == f"{bad[0]}: empty\n"


@pytest.mark.parametrize(("kind", "said"), [("none", "cannot be read (No such file"), ("folder", "is a folder")])
def test_a_name_that_is_no_files_is_refused(kind: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    if kind == "folder":
        file.mkdir()
    with pytest.raises(ImportRefused, match=re.escape(f"{file} {said}")):
        scan(file, AGENT_LOG, ACME, clock=clock())


async def test_importing_again_adds_nothing_whatever_the_file_is_called_and_however_it_is_laid_out(
    world: World, tmp_path: Path
) -> None:
    file = write(tmp_path / "run.json", document())
    first = await in_process(world, scan(file, AGENT_LOG, ACME, clock=clock()))
    digests, stream, stored = await world.digests(), await world.stream(), await contents(world)
    same = dict(reversed(document(level=2, mistake_step=2, other="thing").items()))
    other = write(tmp_path / "renamed.json", b"\xef\xbb\xbf" + json.dumps(same, indent=1, ensure_ascii=False).encode())

    for again in (file, other):
        done = await in_process(world, scan(again, AGENT_LOG, ACME, clock=clock()))
        assert (done.imported, done.already, done.key) == (0, 1, first.key)

    assert await world.stream() == stream
    assert await contents(world) == stored
    assert await world.tables() == digests


async def test_another_tenants_import_is_its_own_with_contents_of_its_own(world: World, tmp_path: Path) -> None:
    file = write(tmp_path / "run.json", document())
    await in_process(world, scan(file, AGENT_LOG, ACME, clock=clock()))

    done = await world.imports(file, file, "--tenant", "globex")

    assert [(one["imported"], one["already"]) for one in done.report["files"]] == [(1, 0), (0, 1)]
    js = world.service.client.jetstream()
    for tenant in ("acme", "globex"):
        assert len(await world.asks("incidents.open_now", tenant=tenant)) == 1
        [mistaken] = await world.asks("decisions.by_outcome", tenant=tenant, outcome="failure")
        *_, step, _ = await world.asks("decisions.audit", tenant=tenant, decision=mistaken["decision"])
        held = Content(sha256=step["content_sha256"], size_bytes=12)
        assert await fetch_content(js, tenant, held) == b"Ask the web."


async def test_an_import_killed_again_and_again_ends_as_one_that_was_left_alone(
    world: World, home: Path, shared_database: str, tmp_path: Path
) -> None:
    files = many(tmp_path, RUNS)
    async with a_world("agent-log", home, shared_database) as calm:
        for file in files:
            assert (await in_process(calm, scan(file, AGENT_LOG, ACME, clock=clock()))).imported == 1
        expected, stream, stored = await calm.digests(), await calm.stream(), await contents(calm)
    assert stream.messages == RUNS * (3 * RUN_STEPS + 2)

    for part in (0, 0.3, 0.6):
        await killed(world, files, after=round(part * stream.messages) + 1)
        assert (await world.stream()).messages < stream.messages
    done = await world.imports(*files)

    assert done.exit_code == 0, done.error
    assert 0 < sum(one["already"] for one in done.report["files"]) < RUNS
    assert (await world.stream()).messages == stream.messages, "nothing is published twice"
    assert await contents(world) == stored
    assert await world.digests() == expected
    assert (await world.service.health()).reasons == [], "no gap, and each chain goes on where it ended"


async def test_two_imports_of_the_same_files_at_the_same_time_are_one(world: World, tmp_path: Path) -> None:
    files = many(tmp_path, RUNS)

    both = await asyncio.gather(world.imports(*files), world.imports(*files))

    assert [done.exit_code for done in both] == [0, 0], [done.error for done in both]
    assert (await world.stream()).messages == RUNS * (3 * RUN_STEPS + 2)
    assert (await world.service.health()).reasons == []
    await world.digests()


async def killed(world: World, files: list[Path], *, after: int) -> None:
    """An import that is killed once so many events stand on the stream."""
    connections = world.connections()
    process = world.start(*files)

    async def further() -> bool:
        assert process.poll() is None, "it ended before it could be killed"
        return (await world.stream()).messages >= after

    await until(further, within_s=IMPORT_S)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    await world.settled(connections)


@pytest.mark.parametrize("published", [1, 8, 13])
async def test_a_run_of_which_some_events_are_published_goes_on_with_the_next(
    world: World, published: int, tmp_path: Path
) -> None:
    found = scan(write(tmp_path / "run.json", document()), AGENT_LOG, ACME, clock=clock())
    identity = found.identity
    options = replace(recorder_options(world.servers, SETTINGS), spools=None, publisher=identity.publisher)
    async with Recorder(options) as recorder:
        [entry], ids = found.entries(clock()), list[str]()
        for event_id, fact in itertools.islice(identity.facts(entry), published):
            ids.append(event_id)
            with scope.entered(correlation=fact.correlation, causation=None if fact.cause is None else ids[fact.cause]):
                receipt = recorder.record(fact.event, id=event_id, time=fact.time)
        await receipt.reached(Ack.REPLICATED)

    assert (await in_process(world, found)).imported == 1

    chain = assert_chained(await on_stream(world.service.client), identity.publisher)
    facts = [(event_id, fact) for event_id, fact in identity.facts(entry) if not isinstance(fact.event, Control)]
    assert [event["id"] for event in chain] == [event_id for event_id, _ in facts]
    late = {fact.content for _, fact in facts[published:] if fact.content is not None}
    assert len(await contents(world)) == len(late), "what was erased meanwhile does not come back"
    assert (await world.service.health()).reasons == []
    await world.digests()


async def test_a_ruling_that_is_missing_is_added_and_a_task_that_somebody_ruled_on_is_left_alone(
    world: World, tmp_path: Path
) -> None:
    found = scan(write(tmp_path / "run.json", document()), AGENT_LOG, ACME, clock=clock())
    unruled = scan(found.path, AGENT_LOG, ACME, clock=clock())
    unruled.rulings = 0
    await in_process(world, unruled)
    assert await world.asks("tasks.by_status", status="failed") == []

    for imported in (1, 0):
        assert (await in_process(world, found)).imported == imported
        assert len(await world.asks("tasks.by_status", status="failed")) == 1

    taken = scan(write(tmp_path / "taken.json", document(question_ID="q-2")), AGENT_LOG, ACME, clock=clock())
    control = ControlLog(
        world.service.client, region="eu", publisher="p-test", clock=clock(), on_append=lambda copy: None
    )
    submitted = TaskSubmitted(task=str(taken.key), queue="again")
    tail = await control.tail(TaskSubmitted, tenant="acme", entity=submitted.task)
    await control.append(submitted, after=tail, tenant="acme", policy_version="1")
    assert (await in_process(world, taken)).imported == 1
    await world.digests()
    assert [one["task"] for one in await world.asks("tasks.by_status", status="pending")] == [taken.key]


def test_what_was_once_imported_keeps_its_identity_and_bytes_for_ever(tmp_path: Path) -> None:
    """Else a later release would import it all again."""

    def pinned(format: Format, path: Path) -> tuple[str, str, str]:
        identity, facts = Identity(format, ACME), list[tuple[str, Fact]]()
        for entry in format.read(path, datetime.now(UTC)):
            assert not isinstance(entry, Malformed)
            identity.add(entry)
            facts += identity.facts(entry)
        ids = [event_id for event_id, _ in facts]
        assert ids == sorted(ids)
        whole = hashlib.sha256()
        for event_id, fact in facts:
            whole.update(b"%b %b %b\n" % (event_id.encode(), str(fact.time).encode(), data_json(fact.event)))
        return identity.publisher, ids[-1], whole.hexdigest()

    trace = b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
    assert pinned(AZURE_LLM, write(tmp_path / "trace.csv", trace)) == (
        "import-azure-llm-e5d72e4eef1d1e67c5374199fea8d82e",
        "018bd958-a2f8-7721-9f60-6c37c9ecfe5b",
        "78eabb79e3738b9cc5f30891606c7e46669da64f3a5c8a623eeec4676e5b465e",
    )
    assert pinned(AGENT_LOG, write(tmp_path / "run.json", document())) == (
        "import-agent-log-ac93cf52f6862644b24a4a5c6b0be3d0",
        "00000000-0011-7560-9bdc-5f17572eb404",
        "64f84f6cca495139b9a26e8776c8603e55c1963a266eb68244aee73844ea5f62",
    )


async def test_the_real_89_runs_are_found_with_agent_and_step(world: World) -> None:
    folder = Path(os.environ.get("RELIGHT_TEST_DATA", "RELIGHT_TEST_DATA is not set")) / "who-and-when"
    files = sorted(folder.glob("*.json"))
    if not files:
        pytest.skip(f"{folder}: no runs there")
    runs = {str(file): json.loads(file.read_bytes()) for file in files}

    first = await world.imports(*files)

    assert first.exit_code == 0, first.error
    assert (len(files), first.report["runs"]) == (89, 89)
    assert all((one["imported"], one["malformed"]) == (1, []) for one in first.report["files"])
    await compare(world, first, runs)
    stream, digests, stored = await world.stream(), await world.digests(), await contents(world)
    texts = {step["content"] for run in runs.values() for step in run["history"]}
    assert len(stored) == len(texts | {run["question"] for run in runs.values()})
    again = await world.imports(*files)
    assert all((one["imported"], one["already"]) == (0, 1) for one in again.report["files"])
    assert await world.stream() == stream
    assert await contents(world) == stored
    assert await world.tables() == digests


async def compare(world: World, done: Import, runs: dict[str, dict[str, Any]]) -> None:
    """Every file with what the queries answer."""
    incidents = {one["incident"]: one for one in await world.asks("incidents.open_now")}
    failures = {one["task"]: one for one in await world.asks("decisions.by_outcome", outcome="failure")}
    tasks = {one["task"] for one in await world.asks("tasks.by_status", status="failed")}
    assert len(incidents) == len(failures) == len(tasks) == len(runs)
    js, elsewhere = world.service.client.jetstream(), []
    for file in done.report["files"]:
        key, run = file["key"], runs[file["file"]]
        at, agent = int(run["mistake_step"]), run["mistake_agent"]
        speakers = [step.get("name") or step["role"].partition(" (")[0] for step in run["history"]]
        decisions = await world.asks("decisions.of_task", task=key)
        assert [one["agent"] for one in decisions] == [speaker for speaker, _ in itertools.groupby(speakers)]
        steps = []
        for one in decisions:
            audit = await world.asks("decisions.audit", decision=one["decision"])
            steps += [(one, step) for step in audit if step["checkpoint_type"] == "step"]
        assert [(one["agent"], step["state_snapshot"]["role"], step["content_sha256"]) for one, step in steps] == [
            (speaker, step["role"], hashlib.sha256(step["content"].encode()).hexdigest())
            for speaker, step in zip(speakers, run["history"], strict=True)
        ]
        assert [step["state_snapshot"]["step"] for _, step in steps] == list(range(len(steps)))
        assert [n for n, (_, step) in enumerate(steps) if "mistake" in step["state_snapshot"]] == [at]
        decision, mistaken = steps[at]
        told = {"agent": agent, "reason": run["mistake_reason"], "type": run.get("mistake_type")}
        assert mistaken["state_snapshot"]["mistake"] == told
        outcomes = {one["decision"]: one["outcome"] for one in decisions}
        assert outcomes.pop(decision["decision"]) == "failure"
        assert set(outcomes.values()) <= {"unknown"}
        assert failures[key]["decision"] == decision["decision"]
        assert failures[key]["error_class"] == run.get("mistake_type", "annotated_mistake")
        text = run["history"][at]["content"].encode()
        held = Content(sha256=mistaken["content_sha256"], size_bytes=len(text))
        assert await fetch_content(js, "acme", held) == text
        description = incidents[f"{key}-mistake"]["description"]
        assert description.startswith(f"{agent} made the decisive mistake at step {at}: {run['mistake_reason']}")
        if f"[The annotation names {agent}, but step {at} was spoken by {speakers[at]}" in description:
            elsewhere.append(Path(file["file"]).stem)
        assert (agent == speakers[at]) == (not description.endswith(".]"))
    # In the fourth the annotated agent is the one spoken to.
    assert elsewhere == ["algorithm-14", "algorithm-15", "algorithm-59", "handcrafted-20", "handcrafted-22"]
