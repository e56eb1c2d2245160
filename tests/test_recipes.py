"""Each recipe does what its page says: what it prints, what it sends, and what is recorded of it."""

import asyncio
import json
import os
import re
import shlex
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import anthropic
import pytest
import pytest_asyncio
from recipe_book import PAGE, SECRETS, Kitchen, Ran, kitchen, matches, recipes
from stack import Projecting, bodies, on_stream, until

from relight.engine.fake.script import Playable, Script, Then
from relight.engine.fake.steps import Fault, Step
from relight.engine.log.content import fetch_content
from relight.events.values import Content

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPUS, HAIKU = "claude-opus-4-8", "claude-haiku-4-5"
GOOD = Step()
PRICED = Step(input_tokens=1_000, output_tokens=500)
FAILS = Step(status=500, headers={"retry-after-ms": "20"})
OVERLOADED = Step(status=529, headers={"retry-after-ms": "20"})
BEDROCK = "eu.anthropic.claude-opus-4-8-v1:0"


@dataclass(frozen=True)
class Scene:
    """What a recipe meets, and what has to come of it."""

    first: Playable = ()
    second: Playable = ()
    files: Mapping[str, str] = field(default_factory=dict)
    sent: tuple[int, int] = (1, 0)
    """How many requests, to Anthropic and to another provider."""
    calls: tuple[tuple[str, str | None, int], ...] = (("success", None, 1),)
    """How each recorded call came out, its error class and its attempts, in order."""
    codes: tuple[int, ...] = (0,)
    tenant: str | None = None


SCENES = {
    "One line of change": Scene(
        (OVERLOADED, GOOD, Step(fault=Fault.RESET_IN_BODY)),
        sent=(4, 0),
        calls=(("success", None, 2), ("success", None, 2)),
        tenant="acme",
    ),
    "Without a loop": Scene(
        (Step(status=429, headers={"retry-after": "1"}),), sent=(2, 0), calls=(("success", None, 2),)
    ),
    "A policy of your own": Scene(
        (Step(status=500), Step(status=529), Step(status=500)), sent=(4, 0), calls=(("success", None, 4),)
    ),
    "Deadlines": Scene(
        (Step(fault=Fault.SILENT), Step(status=429, headers={"retry-after": "30"})),
        sent=(2, 0),
        calls=(("failure", "deadline_exceeded", 1), ("failure", "rate_limited", 1)),
    ),
    "Another model": Scene(
        (Step(status=529), GOOD, Step(stop_reason="refusal")),
        sent=(4, 0),
        calls=(("success", None, 2), ("success", None, 2)),
    ),
    "Bedrock": Scene(
        Script(steps=(Step(status=500),), then=Then.LAST),
        sent=(2, 2),
        calls=(("success", None, 3), ("success", None, 1)),
    ),
    "Vertex": Scene((Step(status=401),), sent=(1, 1), calls=(("success", None, 2),)),
    "Waiting for capacity": Scene(
        (Step(status=500),),
        sent=(2, 0),
        calls=(("failure", "server_error", 1), ("failure", "circuit_open", 0), ("success", None, 1)),
    ),
    "Budgets": Scene(sent=(2, 0), calls=(*(("success", None, 1),) * 2, ("failure", "budget_exceeded", 0))),
    "Budgets in a file": Scene((PRICED,), sent=(1, 0), calls=(("success", None, 1), ("failure", "budget_exceeded", 0))),
    "Prices of your own": Scene(
        (Step(input_tokens=1_000, output_tokens=100, times=2),), sent=(2, 0), calls=(("success", None, 1),) * 2
    ),
    "A breaker for a tool": Scene(sent=(0, 0), calls=()),
    "The same without a loop": Scene(sent=(0, 0), calls=()),
    "Other middlewares": Scene((FAILS,), sent=(2, 0), calls=(("success", None, 2),)),
    "OpenTelemetry": Scene((FAILS,), sent=(2, 0), calls=(("success", None, 2),)),
    "Answering over HTTP": Scene(
        (GOOD, Step(status=500)),
        sent=(2, 0),
        calls=(
            ("success", None, 1),
            ("failure", "budget_exceeded", 0),
            ("failure", "server_error", 1),
            ("failure", "circuit_open", 0),
        ),
    ),
    "Reading what was recorded": Scene(
        (OVERLOADED, PRICED), sent=(2, 0), calls=(("success", None, 2),), codes=(0,) * 7
    ),
    "Redaction": Scene(),
    "Coverage in CI": Scene(
        files={
            "acme/llm.py": "def client(): ...\n",
            "src/refunds.py": (
                "from acme.llm import client\nfrom anthropic import Anthropic\n\n"
                "for order in (991, 992):\n"
                "    client().messages.create(model='m', max_tokens=1, messages=[])\n"
                "    Anthropic().messages.create(model='m', max_tokens=1, messages=[])\n"
            ),
            "src/triage.ts": (
                'import { guardedClient } from "@acme/llm";\n\nconst claude = guardedClient();\n'
                'await claude.messages.create({ model: "m", max_tokens: 1, messages: [] });\n'
                'await claude.messages.create({ model: "m", max_tokens: 2, messages: [] });\n'
            ),
            "src/other.py": "print('no call')\n",
            "src/generated/client.py": (
                "import anthropic\n\nanthropic.Anthropic().messages.create(model='m', max_tokens=1, messages=[])\n"
            ),
        },
        sent=(0, 0),
        calls=(),
        codes=(1, 0),
    ),
    "Counting calls at run time": Scene(files={"pyproject.toml": ""}, sent=(2, 0), codes=(0, 0)),
}
APART = {"Drills": "has a test of its own"}


@dataclass
class Table:
    """All recipes, cooked."""

    cooking: Kitchen
    projecting: Projecting
    ran: dict[str, Ran]

    async def steps(self, heading: str, kind: str = "attempt") -> list[dict[str, Any]]:
        """The checkpoints of that kind in all of its calls, in order."""
        tenant = SCENES[heading].tenant or self.ran[heading].tenant
        rows = await self.projecting.rows(STEPS, tenant, kind)
        return [json.loads(row["state_snapshot"]) for row in rows]

    async def events(self, heading: str) -> list[dict[str, Any]]:
        """What stands on the stream of it."""
        messages = await on_stream(self.projecting.client)
        return [body for body in bodies(messages) if body["tenant"] == self.ran[heading].tenant]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def table(shared_database: str) -> AsyncIterator[Table]:
    blocks = recipes()
    async with kitchen(shared_database) as (cooking, projecting):
        ran = await asyncio.gather(
            *(
                cooking.cook(heading, scene.first, scene.second, dict(scene.files), blocks[heading])
                for heading, scene in SCENES.items()
            )
        )
        await projecting.caught_up()
        yield Table(cooking, projecting, dict(zip(SCENES, ran, strict=True)))


CALLS = """
    SELECT d.outcome, d.error_class, (a.state_snapshot ->> 'attempts')::int AS attempts, d.cost_microusd
    FROM autopilot_decisions AS d
    JOIN decision_audit_logs AS a ON a.tenant = d.tenant AND a.event_id = d.result_event_id
    WHERE d.tenant = $1 AND d.provider IS NOT NULL ORDER BY d.choice_event_id
"""
STEPS = """
    SELECT state_snapshot FROM decision_audit_logs WHERE tenant = $1 AND checkpoint_type = $2 ORDER BY event_id
"""
HAPPENED = """
    SELECT event_type FROM circuit_breaker_events WHERE tenant = $1 AND service_name = $2 ORDER BY event_id
"""
EVERY_TABLE = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"


async def test_every_recipe_with_a_block_is_run() -> None:
    assert {heading for heading, blocks in recipes().items() if blocks} - APART.keys() == SCENES.keys()


async def test_the_table_of_contents_leads_to_every_recipe() -> None:
    text = PAGE.read_text()
    anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in recipes()]
    assert re.findall(r"\]\(#([\w-]+)\)", text) == anchors


@pytest.mark.parametrize("heading", SCENES)
async def test_a_recipe_does_what_the_page_says(heading: str, table: Table) -> None:
    scene, ran = SCENES[heading], table.ran[heading]
    assert tuple(ran.codes) == scene.codes, ran.output
    for said, printed in ran.printed:
        assert said is None or matches(said, printed), printed
    assert (len(ran.first), len(ran.second)) == scene.sent
    rows = await table.projecting.rows(CALLS, scene.tenant or ran.tenant)
    assert tuple((row["outcome"], row["error_class"], row["attempts"]) for row in rows) == scene.calls


async def test_the_record_of_one_line_of_change_has_both_faults(table: Table) -> None:
    attempts = await table.steps("One line of change")
    assert [step.get("error.type") for step in attempts] == ["overloaded", None, "connection", None]


async def test_a_policy_of_ones_own_waits_exactly_as_it_says(table: Table) -> None:
    attempts = await table.steps("A policy of your own")
    assert [step.get("waited_s") for step in attempts] == [None, 0.1, 0.2, 0.3]


async def test_the_wait_that_the_server_asks_for_is_waited(table: Table) -> None:
    _, second = await table.steps("Without a loop")
    assert 1 <= second["waited_s"] <= 1.25


async def test_fallbacks_say_in_the_record_why_they_were_taken(table: Table) -> None:
    reasons = [step.get("fallback_reason") for step in await table.steps("Another model")]
    assert reasons[::2] == [None, None]
    assert [reason.startswith("smaller model") for reason in reasons[1::2] if reason] == [True, True]
    assert [seen.json["max_tokens"] for seen in table.ran["Another model"].first] == [16_000, 8_000] * 2


async def test_an_open_breaker_leads_to_the_other_provider_at_once(table: Table) -> None:
    attempts = await table.steps("Bedrock")
    assert [step["dependency"].split("/")[0] for step in attempts] == [*["anthropic"] * 2, *["aws.bedrock"] * 2]
    assert all(SECRETS[0] not in str(seen.headers) for seen in table.ran["Bedrock"].second)


async def test_the_outcome_names_who_served_it(table: Table) -> None:
    (outcome,) = await table.steps("Vertex", "outcome_known")
    assert outcome["relight.dependency"] == "gcp.vertex_ai/europe-west1/claude-opus-4-8"


async def test_prices_of_ones_own_come_first_and_what_has_none_is_not_guessed(table: Table) -> None:
    rows = await table.projecting.rows(CALLS, table.ran["Prices of your own"].tenant)
    assert [row["cost_microusd"] for row in rows] == [6_300, None]
    assert "claude-of-tomorrow" in table.ran["Prices of your own"].output


async def test_what_happens_at_a_tools_breaker_is_recorded(table: Table) -> None:
    tenant = table.ran["A breaker for a tool"].tenant
    crm, search = [await table.projecting.rows(HAPPENED, tenant, name) for name in ("crm-api", "search")]
    assert sorted(row["event_type"] for row in crm) == ["failure", "failure", "tripped"]
    assert [row["event_type"] for row in search] == ["success"]


async def test_all_events_of_a_call_carry_its_spans_context(table: Table) -> None:
    span = table.ran["OpenTelemetry"].output.split()[1]
    events = [event for event in await table.events("OpenTelemetry") if event["type"].startswith("decisions.")]
    assert len(events) == 4
    assert {event["traceparent"].rpartition("-")[0] for event in events} == {span}


async def test_hooks_change_what_is_kept_and_not_what_is_sent(table: Table) -> None:
    ran = table.ran["Redaction"]
    (sent,) = ran.first
    assert sent.json["messages"] == [{"role": "user", "content": "Refund order 991?"}]
    kept = []
    for event in await table.events("Redaction"):
        for name in ("request", "content"):
            if (content := event["data"].get(name)) is not None:
                found = await fetch_content(
                    table.projecting.client.jetstream(), ran.tenant, Content.model_validate(content)
                )
                kept.append(json.loads(found))
    request, answer = kept
    assert request == {**sent.json, "messages": "[redacted]"}
    assert answer["content"][0]["text"].endswith("to: Refund order 991?")


async def test_no_key_is_ever_recorded_and_no_prompt_but_where_it_was_asked_for(table: Table) -> None:
    stream = b"".join(message.body for message in await on_stream(table.projecting.client))
    assert stream.count(b"decisions.outcome_known") > len(SCENES)
    tables = [row["tablename"] for row in await table.projecting.rows(EVERY_TABLE)]
    readable = [
        name
        for name in tables
        if (await table.projecting.rows("SELECT has_table_privilege($1, 'SELECT') AS may", name))[0]["may"]
    ]
    assert "autopilot_decisions" in readable
    rows = [await table.projecting.rows(f"SELECT t::text FROM {name} AS t") for name in readable]
    written = stream + str(rows).encode()
    for heading, ran in table.ran.items():
        spooled = b"".join(path.read_bytes() for path in (ran.folder / "home").rglob("*") if path.is_file())
        looked_for = SECRETS if heading == "Redaction" else (*SECRETS, "Refund order")
        for secret in looked_for:
            assert secret.encode() not in spooled, (secret, heading)
    for secret in (*SECRETS, "Refund order"):
        assert secret.encode() not in written, secret


async def test_a_drill_serves_its_script_until_it_is_told_to_end(table: Table) -> None:
    script, command, said = recipes()["Drills"]
    folder, out = table.ran["Redaction"].folder / "drill", table.ran["Redaction"].folder / "drill" / "out"
    folder.mkdir()
    assert script.file is not None
    (folder / script.file).write_text(script.text)
    words = shlex.split(command.text)[1:]
    words[words.index("8089")] = "0"  # which may be taken here
    number = await table.cooking.start(command=words, env={"PATH": os.environ["PATH"]}, folder=folder, out=out)
    url = await until(lambda: out.exists() and re.search(r"ANTHROPIC_BASE_URL=(\S+)", out.read_text()))
    async with anthropic.AsyncAnthropic(base_url=url[1], api_key="k", max_retries=0) as client:
        met = [await meets(client) for _ in range(5)]
    assert met == ["429", "overloaded_error", "end_turn", "end_turn", "429"]
    assert await table.cooking.signalled(number, signal.SIGINT) == 0
    assert matches(said.text, out.read_text())


async def meets(client: anthropic.AsyncAnthropic) -> str:
    """What becomes of a stream."""
    try:
        async with client.messages.stream(
            model=OPUS, max_tokens=100, messages=[{"role": "user", "content": "Refund order 991?"}]
        ) as stream:
            return str((await stream.get_final_message()).stop_reason)
    except anthropic.APIStatusError as error:
        return str(error.status_code) if error.status_code != 200 else str(error.type)
