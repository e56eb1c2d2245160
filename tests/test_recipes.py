"""Each recipe does what its page says: what it prints, what it sends, and what is recorded of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from recipe_book import Kitchen, Ran, kitchen, matches, recipes
from stack import Projecting

from relight.engine.fake.script import Playable, Script, Then
from relight.engine.fake.steps import Fault, Step

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPUS, HAIKU = "claude-opus-4-8", "claude-haiku-4-5"
GOOD = Step()
PRICED = Step(input_tokens=1_000, output_tokens=500)
FAILS = Step(status=500, headers={"retry-after-ms": "20"})
OVERLOADED = Step(status=529, headers={"retry-after-ms": "20"})
ANSWERED = ("success", None)
AGENTS = {"Waiting for capacity": "nightly"}


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
        (OVERLOADED, PRICED), sent=(2, 0), calls=(("success", None, 2),), codes=(0,) * 6
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
APART = {"Drills", "What is never recorded"}
"""Have tests of their own."""


@dataclass
class Table:
    """All recipes, cooked."""

    cooking: Kitchen
    projecting: Projecting
    ran: dict[str, Ran]

    async def rows(self, sql: str, ran: Ran, *arguments: object) -> list[dict[str, Any]]:
        return await self.projecting.rows(sql, ran.tenant, *arguments)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def table(shared_database: str) -> AsyncIterator[Table]:
    blocks, began = recipes(), time.monotonic()
    async with kitchen(shared_database) as (cooking, projecting):
        ran = await asyncio.gather(
            *(
                cooking.cook(heading, scene.first, scene.second, dict(scene.files), blocks[heading])
                for heading, scene in SCENES.items()
            )
        )
        await projecting.caught_up()
        print("cooked", time.monotonic() - began)
        yield Table(cooking, projecting, dict(zip(SCENES, ran, strict=True)))


CALLS = """
    SELECT d.decision, d.agent, d.model, d.outcome, d.error_class, (a.state_snapshot ->> 'attempts')::int AS attempts,
           d.cost_microusd, d.task
    FROM autopilot_decisions AS d
    JOIN decision_audit_logs AS a ON a.tenant = d.tenant AND a.event_id = d.result_event_id
    WHERE d.tenant = $1 AND d.provider IS NOT NULL ORDER BY d.choice_event_id
"""


async def test_every_recipe_with_a_block_is_run() -> None:
    assert {heading for heading, blocks in recipes().items() if blocks} - APART == SCENES.keys()


@pytest.mark.parametrize("heading", SCENES)
async def test_a_recipe_does_what_the_page_says(heading: str, table: Table) -> None:
    scene, ran = SCENES[heading], table.ran[heading]
    assert tuple(ran.codes) == scene.codes, ran.output
    for said, printed in ran.printed:
        assert said is None or matches(said, printed), printed
    assert (len(ran.first), len(ran.second)) == scene.sent
    rows = await table.projecting.rows(CALLS, scene.tenant or ran.tenant)
    assert tuple((row["outcome"], row["error_class"], row["attempts"]) for row in rows) == scene.calls
