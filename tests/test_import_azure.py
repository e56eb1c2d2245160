"""Importing the Azure LLM traces, on real servers: again adds nothing, whether the first time ended or was killed."""

import asyncio
import csv
import os
import re
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from importing import IMPORT_S, World, a_world

from relight.engine.clock import Clock
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import ImportRefused
from relight.engine.importers.azure_llm import AZURE_LLM
from relight.engine.importers.identity import Owner
from relight.engine.importers.scanning import scan
from relight.engine.servers import Servers
from relight.engine.tables.pools import PoolOptions, open_pool

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
ROWS = (
    "2023-11-16 18:15:46.6805900,374,44",
    "2023-11-16 18:15:50.9951690,396,109",
    "2023-11-16 18:15:50.9951690,396,109",
    "2024-02-29 23:59:59,0,0",
)
MALFORMED = {
    "2023-11-16 18:15:46.6805900,374": "2 fields, not 3",
    "2023-11-16 18:15:46.6805900,374,44,1": "4 fields, not 3",
    "2023-11-16 18:15:46.6805900,-1,44": "ContextTokens is negative",
    "2023-11-16 18:15:46.6805900,1,99999999999999999999": "GeneratedTokens is beyond 1,000,000,000",
    "2023-11-16 18:15:46.6805900,1.5,44": "ContextTokens is no whole number",
    "0000-01-01 00:00:00,1,1": "TIMESTAMP is on no calendar",
    "2023-02-29 00:00:00,1,1": "TIMESTAMP is on no calendar",
    "1969-12-31 23:59:59.9999999,1,1": "TIMESTAMP is before 1970",
    "9999-12-31 23:59:59,1,1": "TIMESTAMP is in the future",
    "16.11.2023,1,1": "TIMESTAMP is no time",
    "\0\x1b[31m\x80,,": "TIMESTAMP is no time",
    "x" * 5_000: "longer than 1000 bytes",
}


@pytest_asyncio.fixture
async def world(home: Path, database: str) -> AsyncIterator[World]:
    async with a_world("azure-llm", home, database) as world:
        yield world


async def counts(world: World, tenant: str = "acme") -> list[tuple[str, str, int, int, int]]:
    columns = ("decision_type", "outcome", "decisions", "input_tokens", "output_tokens")
    return [tuple(row[column] for column in columns) for row in await world.asks("decisions.counts", tenant=tenant)]


def trace(path: Path, rows: list[str] | tuple[str, ...], *, bom: bytes = b"", end: str = "\r\n") -> Path:
    path.write_bytes(bom + end.join((HEADER, *rows)).encode("latin-1"))
    return path


def many(count: int) -> list[str]:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    moments = (start + timedelta(milliseconds=37 * n) for n in range(count))
    return [f"{moment:%Y-%m-%d %H:%M:%S.%f}0,{n % 5_000},{n % 300}" for n, moment in enumerate(moments)]


async def test_rows_are_imported_and_malformed_lines_are_reported_and_left_out(world: World, tmp_path: Path) -> None:
    mixed = [*ROWS[:2], *MALFORMED, "", *ROWS[2:]]
    file = trace(tmp_path / "trace.csv", mixed)

    done = await world.imports(file)

    assert done.exit_code == 0, done.error
    [said] = done.report["files"]
    assert (said["rows"], said["imported"], said["already"], done.report["calls"]) == (4, 4, 0, 4)
    assert [line["line"] for line in said["malformed"]] == list(range(4, 4 + len(MALFORMED)))
    for line, reason in zip(said["malformed"], MALFORMED.values(), strict=True):
        assert line["reason"].startswith(reason)
        assert line["reason"].isprintable()
    assert said["malformed_lines"] == len(MALFORMED)
    assert await counts(world) == [("agent_call", "unknown", 4, 374 + 2 * 396, 44 + 2 * 109)]


async def test_what_the_file_does_not_say_is_null_and_the_times_are_its_own(world: World, tmp_path: Path) -> None:
    await world.imports(trace(tmp_path / "trace.csv", ROWS[:1]))

    async with await open_pool(world.servers.database_url, PoolOptions(size=1)) as pool, pool.acquire() as connection:
        row = dict(await connection.fetchrow("SELECT * FROM autopilot_decisions"))
        known = {name: value for name, value in row.items() if value is not None}
        seconds = await connection.fetchval("SELECT count(DISTINCT occurred_at) FROM decision_audit_logs")
    assert known.pop("decision").startswith("azure-llm-")
    assert known.pop("choice_event_id") == known.pop("opening_event_id")
    assert known.pop("result_event_id") > row["opening_event_id"]
    assert known == {
        "tenant": "acme",
        "decision_type": "agent_call",
        "region": "local",
        "context": {"source": "AzureLLMInferenceTrace", "row": 1},
        "opened_at": datetime(2023, 11, 16, 18, 15, 46, 680590, UTC),
        "outcome": "unknown",
        "input_tokens": 374,
        "output_tokens": 44,
        "opening_rev": 1,
        "choice_rev": 0,
        "result_rev": 1,
    }
    assert seconds == 1


async def test_importing_again_adds_nothing_however_the_file_is_named_and_written(world: World, tmp_path: Path) -> None:
    assert (await world.imports(trace(tmp_path / "trace.csv", ROWS))).exit_code == 0
    digests, stream = await world.digests(), await world.stream()

    again = trace(tmp_path / "trace.csv", ROWS)
    other = trace(tmp_path / "renamed.csv", ROWS, bom=b"\xef\xbb\xbf", end="\n")
    done = await world.imports(again, again, other, other)

    assert [(file["imported"], file["already"]) for file in done.report["files"]] == [(0, 4)] * 4
    assert await world.stream() == stream
    assert await world.tables() == digests


async def test_another_tenants_import_is_its_own(world: World, tmp_path: Path) -> None:
    file = trace(tmp_path / "trace.csv", ROWS)
    await world.imports(file)

    done = await world.imports(file, "--tenant", "globex")

    assert done.report["files"][0]["imported"] == 4
    assert [await counts(world, tenant) for tenant in ("acme", "globex")] == 2 * [
        [("agent_call", "unknown", 4, 374 + 2 * 396, 44 + 2 * 109)]
    ]


async def test_a_longer_file_adds_only_its_new_rows_to_the_tables(world: World, tmp_path: Path) -> None:
    await world.imports(trace(tmp_path / "trace.csv", ROWS[:2]))

    await world.imports(trace(tmp_path / "trace.csv", ROWS))

    assert await counts(world) == [("agent_call", "unknown", 4, 374 + 2 * 396, 44 + 2 * 109)]


async def test_strict_imports_nothing_when_a_line_of_any_file_is_malformed(world: World, tmp_path: Path) -> None:
    good, bad = trace(tmp_path / "good.csv", ROWS), trace(tmp_path / "bad.csv", [*ROWS, "broken"])

    refused = await world.imports(good, bad, "--strict")

    assert refused.exit_code == 1
    assert f"{bad} line 6: 1 fields, not 3: 'broken'" in refused.error.replace("\n", " ")
    assert (await world.stream()).messages == 0
    assert (await world.imports(good, "--strict")).report["calls"] == 4


async def test_an_import_that_was_killed_is_completed_by_the_next(world: World, tmp_path: Path) -> None:
    file = trace(tmp_path / "trace.csv", many(8_000))
    connections = world.connections()
    process = world.start(file)
    async with asyncio.timeout(IMPORT_S):
        while (await world.stream()).messages < 4_000:
            assert process.poll() is None, "it ended before it could be killed"
            await asyncio.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 4_000 <= (there := (await world.settled(connections)).messages) < 16_000

    done = await world.imports(file)

    [said] = done.report["files"]
    assert (said["rows"], said["already"], said["imported"]) == (8_000, there // 2, 8_000 - there // 2)
    stream, digests = await world.stream(), await world.digests()
    assert stream.messages == 16_000, "nothing is published twice"
    assert (await world.service.health()).reasons == [], "no gap, and the chain goes on where it ended"
    again = await world.imports(file)
    assert (again.report["files"][0]["already"], await world.stream()) == (8_000, stream)
    assert await world.tables() == digests


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("folder", "is a folder"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a,b,c\n1,2,3\n", "first line is 'a,b,c'"),
        (HEADER.encode("utf-16"), "is no Azure LLM inference trace"),
        (bytes(range(256)) * 100, "is no Azure LLM inference trace"),
        (b"\0" * 100_000, "is no Azure LLM inference trace"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(content: bytes | str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.mkdir()
    with pytest.raises(ImportRefused, match=re.escape(said)):
        scan(file, AZURE_LLM, Owner(tenant="acme", region="local"), clock=Clock())


async def test_a_refusal_is_one_sentence_and_asks_no_server(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_bytes(bytes(range(256)) * 100)
    nobody = Servers(nats="nats://127.0.0.1:9", monitors=(), database="postgresql://127.0.0.1:9/x", ours=False)

    refused = await World("azure-llm", None, nobody).imports(file)  # type: ignore[arg-type]  # no server is asked

    assert refused.exit_code == 1
    assert "is no Azure LLM inference trace" in refused.error
    assert refused.error.count("error:") == 1
    assert "Traceback" not in refused.error


async def test_a_trace_without_rows_is_no_error(world: World, tmp_path: Path) -> None:
    assert (await world.imports(trace(tmp_path / "trace.csv", []))).report["calls"] == 0


async def test_without_a_projector_the_import_says_so(home: Path, tmp_path: Path) -> None:
    async with EmbeddedNats(home / "import-alone") as nats:
        alone = Servers(nats=nats.url, monitors=(), database="postgresql://127.0.0.1:9/x", ours=False)

        refused = await World("azure-llm", None, alone).imports(trace(tmp_path / "trace.csv", ROWS))  # type: ignore[arg-type]

    assert refused.exit_code == 1
    assert "relight up" in refused.error


async def test_the_real_traces_hold_28_185_calls_however_often_they_are_imported(world: World) -> None:
    folder = Path(os.environ.get("RELIGHT_TEST_DATA", "RELIGHT_TEST_DATA is not set"))
    files = [folder / f"AzureLLMInferenceTrace_{name}.csv" for name in ("conv", "code")]
    if not all(file.is_file() for file in files):
        pytest.skip(f"{folder}: no AzureLLMInferenceTrace_conv.csv and _code.csv there")
    calls = [row for file in files for row in csv.DictReader(file.read_text().splitlines())]
    tokens = [sum(int(call[column]) for call in calls) for column in ("ContextTokens", "GeneratedTokens")]

    first = await world.imports(*files)

    assert [(file["rows"], file["malformed"]) for file in first.report["files"]] == [(19_366, []), (8_819, [])]
    assert (first.report["calls"], len(calls)) == (28_185, 28_185)
    assert await counts(world) == [("agent_call", "unknown", 28_185, *tokens)]
    stream, digests = await world.stream(), await world.digests()
    assert stream.messages == 2 * 28_185
    again = await world.imports(*files)
    assert [file["already"] for file in again.report["files"]] == [19_366, 8_819]
    assert await world.stream() == stream
    assert await world.tables() == digests
