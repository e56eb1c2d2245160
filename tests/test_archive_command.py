"""`relight archive` as a person or a script runs it, and the archiver as a part of the service."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import stack
from archiving import Publisher, archived, stream_messages
from observing import found
from stack import connected, nats_server, until
from test_lifecycle import servers_of

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.recorder.receipts import Ack
from relight.engine.service import Parts, serving
from relight.engine.settings import Settings

RELIGHT = [sys.executable, "-m", "relight.engine.cli.main"]


def environment(nats: EmbeddedNats, home: Path, **settings: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    return plain | {"RELIGHT_HOME": str(home), "RELIGHT_NATS_URL": nats.url} | settings


async def relight(nats: EmbeddedNats, home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [*RELIGHT, *arguments],
        env=environment(nats, home, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


async def test_once_and_status_say_what_was_sealed(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        none = await relight(nats, tmp_path, "archive", "--once")
        assert (none.returncode, "RELIGHT_ARCHIVE" in none.stderr) == (1, True)
        await Publisher(client).publish(150)
        where = {"RELIGHT_ARCHIVE": str(folder), "RELIGHT_ARCHIVE_SEAL_EVENTS": "100"}
        done = await relight(nats, tmp_path, "archive", "--once", "--json", **where)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        assert (said["sealed_seq"], said["segment"], said["missing_messages"]) == (150, 2, 0)
        await Publisher(client, "p-more").publish(3)
        shown = await relight(nats, tmp_path, "archive", "status", "--archive", str(folder), "--json")
        assert shown.returncode == 0, shown.stderr
        status = json.loads(shown.stdout)
        assert (status["segments"], status["events"], status["stream"]["lag_events"]) == (2, 150, 3)
        assert "3 events" in (await relight(nats, tmp_path, "archive", "status", **where)).stdout
        await client.jetstream().purge_stream("EV", seq=153)
        lost = await relight(nats, tmp_path, "archive", "--once", **where)
        assert (lost.returncode, "151-152" in lost.stderr) == (1, True)


async def test_sigterm_seals_what_is_in_hand(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        await Publisher(client).publish(40)
        process = subprocess.Popen(
            [*RELIGHT, "archive", "--to", str(folder), "--json"],
            env=environment(nats, tmp_path, RELIGHT_ARCHIVE_SEAL_EVENTS="25"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            await until(lambda: list(folder.glob("segments/*.json")), "the first segment is sealed")
            process.send_signal(signal.SIGTERM)
            printed, failed = await asyncio.to_thread(process.communicate, timeout=20)
        finally:
            process.kill()
        assert process.returncode == 0, failed
        assert json.loads(printed.splitlines()[-1])["sealed_seq"] == 40
        assert (await archived(folder))[1] == await stream_messages(nats)


async def test_a_service_archives_where_it_is_told_to(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats:
        settings = Settings(home=tmp_path, region="eu", tenant="acme", archive=str(folder), archive_seal_s=0.2)
        async with serving(servers_of(nats, database), settings, Parts(listens=False)) as service:
            assert service.recorder is not None
            await service.recorder.record(stack.failed(1)).reached(Ack.PROJECTED)

            async def sealed() -> bool:
                check = found(await service.health(), "archive:sealedSequence")
                return isinstance(check.observed, int) and check.observed >= 2

            await until(sealed, "health says that it is sealed")
        _, messages = await archived(folder)
        assert messages == (await stream_messages(nats))[: len(messages)]
        other = tmp_path / "other"
        without = settings.overridden({"archive": str(other)})
        async with serving(servers_of(nats, database), without, Parts(listens=False, archive=False)) as service:
            assert not [check for check in (await service.health()).checks if check.component == "archive"]
        assert not other.exists()
