"""Tasks as they are used: submitted, worked on and asked about through `relight.open` and the command."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stack

import relight
from relight.engine.errors import TaskRefused
from relight.events.tasks import TaskStatus

COMMAND = [sys.executable, "-c", "from relight.engine.cli.main import main; main()"]
COMMAND_S = 60.0


@pytest.fixture
def own_home() -> Iterator[Path]:
    """Of servers that are started for the while: then this process gives out tasks itself."""
    with stack.folder() as path:
        yield path / "home"


async def command(*arguments: str, servers: dict[str, str], status: int = 0) -> Any:
    running = await asyncio.create_subprocess_exec(
        *(*COMMAND, "task", *arguments, "--json"),
        env=os.environ | servers,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(COMMAND_S):
        said, error = await running.communicate()
    assert running.returncode == status, error.decode()
    return json.loads(said) if status == 0 else error.decode()


async def test_tasks_are_worked_on_without_any_service_and_asked_about(own_home: Path) -> None:
    async with relight.open(home=own_home, region="eu", tenant="acme") as r:
        with pytest.raises(TaskRefused, match="nothing to work on"):
            await r.work()

        @r.worker("refunds", concurrency=2, backoff_s=0.01)
        async def work(task: relight.Task) -> dict[str, object]:
            async with r.decision("refund", context={"order": 991}) as d:
                d.take("approve")
            if task.id == "doomed":
                raise relight.TaskGivenUp("withdrawn")
            return {"order": task.json()}

        with pytest.raises(TaskRefused, match="has a worker in this process already"):
            r.worker("refunds")(work)
        with pytest.raises(TaskRefused, match="concurrency 0 must be 1 or more"):
            r.worker("other", concurrency=0)
        good = await r.submit("refunds", 991, task="good", priority=2)
        await r.submit("refunds", task="doomed")
        later = await r.submit("refunds", task="later", delay_s=3_600)
        async with r.working() as worker:
            async with asyncio.timeout(20):
                while worker.done < 2:
                    await asyncio.sleep(0.01)
        tail = await r.tail(type(good.tail.event.data), "doomed")  # type: ignore[union-attr]
        dead = await r.query("tasks.dead", after=tail)
        assert [row.model_dump()["status_reason"] for row in dead] == ["TaskGivenUp: withdrawn"]
        pending = await r.query("tasks.pending", after=later.tail, queue="refunds")
        assert [row.model_dump()["task"] for row in pending] == ["later"]
        decided = await r.query("decisions.of_task", after=r.mark(), task="good")
        assert decided, "what was decided meanwhile is the task's"


async def test_the_command_submits_lists_and_shows_tasks(database: str, spools: Path) -> None:
    async with stack.nats_server() as nats, stack.service_answers(nats, database) as projected:
        servers = {
            "RELIGHT_HOME": str(spools),
            "RELIGHT_TENANT": "acme",
            "RELIGHT_NATS_URL": nats.url,
            "RELIGHT_NATS_MONITOR_URLS": nats.monitor_url,
            "RELIGHT_DATABASE_URL": database,
        }
        said = await command("submit", "refunds", '{"order":7}', "--task", "t-1", servers=servers)
        assert (said["task"], said["rev"], said["status"]) == ("t-1", 1, "pending")

        def submitted_again() -> tuple[int, TaskStatus]:
            given = {name.removeprefix("RELIGHT_").lower(): value for name, value in servers.items()}
            given |= {"nats_monitor_urls": (nats.monitor_url,)}  # type: ignore[dict-item]
            with relight.open_sync(**given) as r:
                task = r.submit("refunds", b'{"order":7}', task="t-1")
                return task.tail.rev, task.state.status

        assert await asyncio.to_thread(submitted_again) == (1, TaskStatus.PENDING)
        shown = await command("show", "t-1", servers=servers)
        assert (shown["queue"], shown["ruling"], shown["history"]) == ("refunds", "tasks.submitted", [])
        await projected.caught_up()
        assert [row["task"] for row in await command("list", "--queue", "refunds", servers=servers)] == ["t-1"]
        error = await command("show", "t-2", servers=servers, status=1)
        assert "there is no task t-2 of tenant acme" in error
