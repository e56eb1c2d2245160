"""Imports of agents' logs that are repeated, killed or made twice at once: nothing is there twice or missing."""

import asyncio
import itertools
import json
import signal
from dataclasses import replace
from pathlib import Path

import agent_logs
import pytest
from agent_logs import ACME, RUN_STEPS, RUNS, contents, document, many, write
from importing import IMPORT_S, World, a_world
from stack import assert_chained, on_stream, until

from relight.engine import scope
from relight.engine.app.connections import clock
from relight.engine.importers.agent_log import AGENT_LOG
from relight.engine.importers.importing import ImportedFile, import_file
from relight.engine.importers.scanning import Scan, scan
from relight.engine.log.content import fetch_content
from relight.engine.log.control import ControlLog
from relight.engine.options import recorder_options
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.settings import Settings
from relight.events.base import Control
from relight.events.tasks import TaskSubmitted
from relight.events.values import Content

SETTINGS = Settings(home=Path("/nonexistent"), tenant="acme")
world = agent_logs.world


async def in_process(world: World, found: Scan) -> ImportedFile:
    options = recorder_options(world.servers, SETTINGS)
    return await import_file(
        found, client=world.service.client, options=options, clock=clock(), advanced=lambda rows: None
    )


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
