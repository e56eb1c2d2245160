"""Logs of agents' runs as they are read: what is no run, what is no fault, and what keeps its identity for ever."""

import asyncio
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import agent_logs
import pytest
from agent_logs import ACME, MISTAKE, STEPS, document, write
from importing import IMPORT_S, World

from relight.engine.app.connections import clock
from relight.engine.errors import ImportRefused
from relight.engine.importers.agent_log import AGENT_LOG
from relight.engine.importers.azure_llm import AZURE_LLM
from relight.engine.importers.identity import Fact, Format, Identity, Malformed
from relight.engine.importers.scanning import scan
from relight.events.envelope import data_json

world = agent_logs.world


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in document().items() if key not in keys}


def with_step(**changes: object) -> dict[str, Any]:
    return document(history=[*STEPS[:2], {**STEPS[2], **changes}, *STEPS[3:]])


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
