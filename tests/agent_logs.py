"""What tests of agents' logs share: runs as the data set has them, and a world to import them into."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from importing import World, a_world

from relight.engine.importers.identity import Owner

RUNS, RUN_STEPS = 20, 6
ACME = Owner(tenant="acme", region="local")
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


async def contents(world: World) -> dict[str, int]:
    """What the content store holds: by name, the number of messages that say so."""
    info = await world.service.client.jetstream().stream_info("OBJ_content", subjects_filter="$O.content.M.>")
    return info.state.subjects or {}
