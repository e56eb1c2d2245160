"""The doctor at NATS: no JetStream, few rights, and what is proven of its disks."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import examining
import stack
from examining import OF_NATS, assert_only, examined, settings_of
from nats.js.api import StreamConfig
from stack import connected, nats_server

from relight.engine.doctor.models import Outcome
from relight.engine.embedded.binaries import nats_server as nats_binary
from relight.engine.embedded.ports import free_port
from relight.engine.log.topology import connect
from relight.engine.proving.answering import answering
from relight.engine.proving.building import polling_prober
from relight.engine.servers import Servers

house = examining.house


@asynccontextmanager
async def _nats_configured(config: str) -> AsyncIterator[tuple[str, str]]:
    """A server of this configuration; its URL and monitoring address."""
    with stack.folder() as folder:
        port, monitor = free_port(), free_port()
        file = folder / "conf"
        listening = f'listen: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{monitor}"\n'
        file.write_text(listening + config.replace("STORE", str(folder)))
        process = subprocess.Popen(
            [str(nats_binary()), "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:

            async def answers() -> bool:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    return False
                writer.close()
                return True

            await stack.until(answers)
            yield f"127.0.0.1:{port}", f"http://127.0.0.1:{monitor}"
        finally:
            process.terminate()
            process.wait(20)


async def test_a_nats_without_jetstream_says_so(database: str, house: Path) -> None:
    async with nats_server() as unused, _nats_configured("") as (address, monitor):
        environment = settings_of(unused, database, house) | {
            "RELIGHT_NATS_URL": f"nats://{address}",
            "RELIGHT_NATS_MONITOR_URLS": monitor,
        }
        _, results = await examined(environment)
        assert_only(results, "jetstream", skipped=OF_NATS[1:])
        assert "turn it on" in str(results["jetstream"].advice)


async def test_a_login_that_may_not_make_streams_is_warned_of_and_everything_else_is_tried(
    database: str, house: Path
) -> None:
    config = """
jetstream { store_dir: "STORE", sync_interval: always }
authorization { users = [
  { user: all, password: all }
  { user: few, password: few, permissions { publish { deny: ["$JS.API.STREAM.CREATE.>"] } } }
] }
"""
    async with nats_server() as unused, _nats_configured(config) as (address, monitor):
        client = await connect(f"nats://all:all@{address}", name="test")
        await stack.ensure_stream(client.jetstream())
        await client.close()
        environment = settings_of(unused, database, house) | {
            "RELIGHT_NATS_URL": f"nats://few:few@{address}",
            "RELIGHT_NATS_MONITOR_URLS": monitor,
        }
        _, results = await examined(environment)
        assert_only(results, "publish", "content")
        assert "permissions violation" in results["publish"].found.lower()
        assert "allow this login" in str(results["publish"].advice)


async def test_servers_that_do_not_fsync_fail_and_unknown_ones_are_warned_of(database: str, house: Path) -> None:
    async with nats_server(sync_always=False) as nats, connected(nats) as client:
        report, results = await examined(settings_of(nats, database, house))
        assert_only(results, "fsync")
        assert results["fsync"].outcome is Outcome.FAIL
        assert "sync_interval: always" in results["fsync"].found
        assert results["durability"].outcome is Outcome.FAIL
        assert "fsync off" in results["durability"].found
        assert not report.passes()

        await client.jetstream().delete_stream("EV")
        await client.jetstream().add_stream(config=StreamConfig(name="EV", subjects=["ev.>"]))
        _, results = await examined(settings_of(nats, database, house, RELIGHT_NATS_MONITOR_URLS=""))
        assert_only(results, "stream", skipped=("fsync",))
        assert "discard is not new" in results["stream"].found

        await client.jetstream().delete_stream("EV")
        await stack.ensure_stream(client.jetstream())
        _, results = await examined(settings_of(nats, database, house, RELIGHT_NATS_MONITOR_URLS=""))
        assert_only(results, "fsync")
        assert results["fsync"].outcome is Outcome.WARN


async def test_what_is_proven_is_told_with_who_said_so_and_who_could_say_so_falsely(database: str, house: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        system = {"RELIGHT_NATS_SYSTEM_URL": nats.system_url, "RELIGHT_NATS_MONITOR_URLS": ""}
        _, results = await examined(settings_of(nats, database, house, **system))
        assert_only(results)
        assert "proven here (system account) for relight (2." in results["fsync"].found
        assert "no service's prober answers others yet" in results["fsync"].found
        assert "as trustworthy as everybody who has it" in results["fsync"].found

        wrong = system | {"RELIGHT_NATS_SYSTEM_URL": nats.system_url.replace("system:", "system:wrong", 1)}
        report, results = await examined(settings_of(nats, database, house, **wrong))
        assert_only(results, "fsync")
        assert "RELIGHT_NATS_SYSTEM_URL" in results["fsync"].found
        assert "wrong" not in report.model_dump_json()

        servers = Servers(nats=nats.url, monitors=(), database=None, ours=False, system=nats.system_url)
        prober = polling_prober(client, servers, ttl_s=60, name="relight:eu:there:1")
        assert prober is not None
        async with answering(client, prober):
            agents = {"RELIGHT_NATS_URL": nats.agent_url, "RELIGHT_NATS_MONITOR_URLS": ""}
            _, results = await examined(settings_of(nats, database, house, **agents))
        assert_only(results)
        assert "proven by relight:eu:there:1" in results["fsync"].found
        assert "this login cannot answer in a prober's place" in results["fsync"].found
