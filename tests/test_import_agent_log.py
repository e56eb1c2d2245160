"""Importing logs of agents' failed runs, on real servers: each step, and the mistake."""

import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

import agent_logs
import pytest
from agent_logs import STEPS, TURNS, contents, document, write
from importing import Import, World

from relight.engine.log.content import fetch_content
from relight.events.values import Content

world = agent_logs.world


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
