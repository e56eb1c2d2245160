"""The page of recipes as data, and a kitchen that runs each of them as it stands, against APIs that misbehave."""

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stack

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.fake.script import Playable
from relight.engine.fake.seen import Seen
from relight.engine.fake.server import FakeAnthropic

PAGE = Path(__file__).parent.parent / "deploy" / "recipes.md"
SECRETS = ("sk-recipe-secret", "recipe-aws-secret", "recipe-vertex-token")
ENDS_S = 60.0


@dataclass(frozen=True)
class Block:
    """`language` is python, sh, toml or text."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """What it is to be called, if its first line says so."""
        named = re.match(r"# ([\w/]+\.\w+)\n", self.text)
        return named and named[1]


def recipes() -> dict[str, tuple[Block, ...]]:
    """The blocks of each recipe, by its heading."""
    found = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)
        found[heading] = tuple(Block(language, text) for language, text in blocks)
    return found


def matches(said: str, printed: str) -> bool:
    """`…` of the page stands for anything."""
    pattern = ".*?".join(map(re.escape, said.strip().split("…")))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


@dataclass
class Ran:
    """What came of one recipe."""

    tenant: str
    folder: Path
    first: list[Seen] = field(default_factory=list)
    """What Anthropic was sent."""
    second: list[Seen] = field(default_factory=list)
    """What Bedrock or Vertex was sent."""
    codes: list[int] = field(default_factory=list)
    """Of its programs and commands, in order."""
    printed: list[tuple[str | None, str]] = field(default_factory=list)
    """What the page says is printed, and what is."""

    @property
    def output(self) -> str:
        return "".join(printed for _, printed in self.printed)


class Kitchen:
    """Runs recipes, several at once, each with a tenant, a home and a fake Anthropic of its own."""

    def __init__(self, child: asyncio.subprocess.Process, nats: EmbeddedNats, database: str, folder: Path) -> None:
        self._child = child
        self._servers = {
            "RELIGHT_NATS_URL": nats.url,
            "RELIGHT_NATS_MONITOR_URLS": nats.monitor_url,
            "RELIGHT_DATABASE_URL": database,
            "RELIGHT_REGION": "eu",
        }
        self._folder = folder
        self._started: dict[int, asyncio.Future[int]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._busy = asyncio.Semaphore((os.cpu_count() or 1) + 2)

    async def cook(
        self, heading: str, first: Playable, second: Playable, files: dict[str, str], blocks: Sequence[Block]
    ) -> Ran:
        """All blocks of a recipe, in order; what its first line calls a file is one."""
        tenant = re.sub(r"\W+", "-", heading.lower())
        ran = Ran(tenant, self._folder / tenant)
        for name, text in files.items() | {(block.file, block.text) for block in blocks if block.file}:
            (ran.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (ran.folder / name).write_text(text)
        ran.folder.mkdir(exist_ok=True)
        async with self._busy, FakeAnthropic(first) as one, FakeAnthropic(second) as other:
            env = self._environment(ran, one.url, other.url)
            for number, block in enumerate(blocks):
                if block.language in ("python", "sh"):
                    said = blocks[number + 1] if number + 1 < len(blocks) else None
                    before = ran.folder / f"out-{number}"
                    for job in self._jobs(block, number, ran.folder):
                        ran.codes.append(await self.run(**job, env=env, folder=ran.folder, out=before))
                    expected = said.text if said is not None and said.language == "text" else None
                    ran.printed.append((expected, before.read_text() if before.exists() else ""))
            ran.first, ran.second = one.requests, other.requests
        return ran

    async def run(self, **job: Any) -> int:
        """Its exit code."""
        number = await self.start(**job)
        return await asyncio.wait_for(self._ended[number], ENDS_S)

    async def start(self, *, env: dict[str, str], folder: Path, out: Path, **what: Any) -> int:
        number = len(self._started)
        loop = asyncio.get_running_loop()
        self._started[number], self._ended[number] = loop.create_future(), loop.create_future()
        job = {"number": number, "env": {**env, **what.pop("also", {})}, "folder": str(folder), "out": str(out), **what}
        assert self._child.stdin is not None
        self._child.stdin.write(f"{json.dumps(job)}\n".encode())
        await self._child.stdin.drain()
        return number

    async def signalled(self, number: int, signal: int) -> int:
        """The exit code of a program that is told to end."""
        os.kill(await self._started[number], signal)
        return await asyncio.wait_for(self._ended[number], ENDS_S)

    async def listen(self) -> None:
        """To what the child says, until it ends."""
        assert self._child.stdout is not None
        async for line in self._child.stdout:
            said = json.loads(line)
            if "pid" in said:
                self._started[said["number"]].set_result(said["pid"])
            else:
                self._ended[said["number"]].set_result(said["code"])
        for future in (*self._started.values(), *self._ended.values()):
            if not future.done():
                future.set_exception(RuntimeError("the process that runs recipes has ended"))

    def _environment(self, ran: Ran, first_url: str, second_url: str) -> dict[str, str]:
        key, aws, vertex = SECRETS
        return {
            "HOME": str(ran.folder),
            "PATH": os.environ["PATH"],
            "RELIGHT_HOME": str(ran.folder / "home"),
            "RELIGHT_TENANT": ran.tenant,
            "ANTHROPIC_API_KEY": key,
            "ANTHROPIC_BASE_URL": first_url,
            "ANTHROPIC_BEDROCK_BASE_URL": second_url,
            "ANTHROPIC_VERTEX_BASE_URL": f"{second_url}/v1",
            "AWS_ACCESS_KEY_ID": "recipe-aws-id",
            "AWS_SECRET_ACCESS_KEY": aws,
            "VERTEX_ACCESS_TOKEN": vertex,
            **self._servers,
        }

    def _jobs(self, block: Block, number: int, folder: Path) -> list[dict[str, Any]]:
        if block.language == "python":
            name = block.file or f"recipe_{number}.py"
            (folder / name).write_text(block.text)
            return [{"file": name}]
        jobs = []
        for line in block.text.splitlines():
            program, *command = shlex.split(line, comments=True)
            assert program == "relight", line
            jobs.append({"command": command})
        return jobs


@asynccontextmanager
async def kitchen(database: str) -> AsyncIterator[tuple[Kitchen, stack.Projecting]]:
    """With a stream of its own, and what is recorded on its way into the tables of `database`."""
    async with AsyncExitStack() as opened:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).parent / "recipe_child.py"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        nats = await opened.enter_async_context(stack.nats_server())
        projecting = await opened.enter_async_context(stack.service_answers(nats, database))
        cooking = Kitchen(child, nats, database, opened.enter_context(stack.folder()))
        listening = asyncio.create_task(cooking.listen())
        try:
            yield cooking, projecting
        finally:
            assert child.stdin is not None
            child.stdin.close()
            await asyncio.wait_for(child.wait(), ENDS_S)
            await listening
