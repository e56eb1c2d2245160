"""The service starts whatever its servers do, and stops so that what is in hand is finished, or says what was not."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import stack
from serving_process import served
from stack import connected, failed, nats_server, on_stream, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.errors import SettingsError
from relight.engine.health.readiness import Readiness
from relight.engine.http.entry import Entry
from relight.engine.http.server import HttpServer, http_server
from relight.engine.recorder.receipts import Ack
from relight.engine.servers import Servers
from relight.engine.service import Parts, Service, caught_up, serving
from relight.engine.settings import Settings
from relight.engine.stopping import Stopping
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import digest_memory, digest_postgres

ALL = Parts()


def servers_of(nats: EmbeddedNats, database: str) -> Servers:
    return Servers(nats=nats.url, monitors=(nats.monitor_url,), database=database, ours=False)


@asynccontextmanager
async def running(
    nats: EmbeddedNats, database: str, home: Path, *, parts: Parts = ALL, drain_s: float = 10
) -> AsyncIterator[tuple[Service, Stopping]]:
    stopping = Stopping(drain_s)
    settings = Settings(home=home, region="eu", tenant="acme", drain_s=drain_s)
    async with serving(servers_of(nats, database), settings, parts, stopping=stopping) as service:
        yield service, stopping


class Api:
    """Stands in for the API where a request has to take as long as a test wants."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.at_hand = 0
        self.cancelled = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.at_hand += 1
        try:
            if scope["path"] == "/slow":
                await self.go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"answered"})
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_hand -= 1


@asynccontextmanager
async def http() -> AsyncIterator[tuple[HttpServer, Entry, Readiness, Api, aiohttp.ClientSession]]:
    readiness, api = Readiness(), Api()
    entry = Entry(readiness)
    async with (
        http_server(entry, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url, timeout=aiohttp.ClientTimeout(total=20)) as client,
    ):
        yield server, entry, readiness, api, client


async def test_until_the_api_is_there_everyone_hears_what_is_waited_for() -> None:
    async with http() as (_, entry, readiness, api, client):
        readiness.starting("waiting for PostgreSQL at 127.0.0.1:5432")
        for path, status in (("/livez", 200), ("/readyz", 503), ("/startupz", 503), ("/health", 503), ("/v1/x", 503)):
            async with client.get(path) as answer:
                assert answer.status == status
                document = await answer.json(content_type=None)
                if status == 503:
                    assert "waiting for PostgreSQL" in str(document)
                    assert answer.headers["retry-after"] == "1"
        async with client.head("/readyz") as answer:
            assert (answer.status, await answer.read()) == (503, b"")
        entry.open(api)
        readiness.ready()
        async with client.get("/v1/x") as answer:
            assert await answer.text() == "answered"
            assert "connection" not in answer.headers


async def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Found: of a listener whose protocol is not named asyncio sets no TCP_NODELAY, and every answer took 40 ms."""
    async with http() as (server, _, _, _, client):
        async with client.get("/livez") as answer:
            await answer.read()
        [connection] = server._server.server_state.connections
        transport: Any = getattr(connection, "transport", None)
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_while_draining_clients_are_answered_and_asked_to_leave() -> None:
    async with http() as (_, entry, readiness, api, client):
        entry.open(api)
        readiness.ready()
        readiness.draining()
        async with client.get("/v1/x") as answer:
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        async with client.get("/readyz") as answer:
            assert (answer.status, answer.headers["connection"]) == (503, "close")


async def test_requests_at_hand_are_finished_and_no_new_connection_is_taken() -> None:
    async with http() as (server, entry, readiness, api, client):
        entry.open(api)
        readiness.ready()
        async with client.get("/idle") as answer:  # leaves an idle connection behind
            await answer.read()
        slow = [asyncio.create_task(client.get("/slow")) for _ in range(3)]
        await until(lambda: api.at_hand == 3)
        stopping = asyncio.create_task(server.stop(within_s=10))
        async with aiohttp.ClientSession(server.url) as late:
            await until(lambda: _refused(late), "new connections are refused")
        assert not stopping.done()
        api.go_on.set()
        assert [await (await answer).text() for answer in slow] == ["answered"] * 3
        assert await stopping == 0
        assert await server.stop(within_s=0) == 0


async def _refused(client: aiohttp.ClientSession) -> bool:
    try:
        await (await client.get("/idle")).read()
    except aiohttp.ClientConnectionError:
        return True
    return False


async def test_requests_that_take_too_long_are_cut_off_and_counted() -> None:
    async with http() as (server, entry, readiness, api, client):
        entry.open(api)
        readiness.ready()
        slow = [asyncio.create_task(client.get("/slow")) for _ in range(2)]
        await until(lambda: api.at_hand == 2)
        half_a_request = await asyncio.open_connection(*server.url.removeprefix("http://").split(":"))
        half_a_request[1].write(b"GET /slow HTT")
        began = time.monotonic()
        assert await server.stop(within_s=0.2) == 2
        assert time.monotonic() - began < 2
        await asyncio.gather(*slow, return_exceptions=True)
        assert (api.at_hand, api.cancelled) == (0, 2)
        half_a_request[1].close()


async def test_what_was_recorded_is_replicated_and_projected_before_the_service_ends(
    database: str, spools: Path
) -> None:
    async with nats_server() as nats, connected(nats) as client:
        async with running(nats, database, spools.parent) as (service, stopping):
            assert service.recorder is not None
            receipts = [service.recorder.record(failed(n)) for n in range(2_000)]
        assert stopping.cut_off == []
        assert all(receipt.pseq for receipt in receipts)
        assert sorted(stack.numbers(await on_stream(client))) == list(range(2_000))
        publisher = service.recorder.publisher
        bodies = stack.bodies(await on_stream(client))
        assert [body["type"] for body in bodies if body["publisher"] == publisher][-1] == "recorder.closed"
        async with running(nats, database, spools.parent) as (again, _):
            assert await caught_up(again, within_s=stack.DEADLINE_S)
            session = await connect_session(database, role=stack.ROLE)
            assert (await digest_postgres(session)).tables == (await digest_memory(client)).tables
            await session.close()


async def test_what_the_stream_did_not_take_is_said_and_waits_in_the_spool(database: str, spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        async with running(nats, database, spools.parent, drain_s=5) as (service, stopping):
            assert service.recorder is not None
            await service.recorder.record(failed(0)).reached(Ack.REPLICATED)
            await nats.stop()
            for n in range(1, 51):
                service.recorder.record(failed(n))
            began = time.monotonic()
        assert time.monotonic() - began < 5
        [said] = stopping.cut_off
        assert "51 events" in said  # and recorder.closed
        assert "wait in its spool" in said
        await nats.start()
        async with running(nats, database, spools.parent) as (again, _):
            await until(lambda: _all_there(client), "the next process here sends them")
            assert await caught_up(again, within_s=stack.DEADLINE_S)


async def _all_there(client: Any) -> bool:
    return sorted(stack.numbers(await on_stream(client))) == list(range(51))


async def test_a_batch_that_cannot_be_written_in_time_is_rolled_back_and_said(database: str, spools: Path) -> None:
    async with nats_server() as nats:
        blocker, watching = await asyncpg.connect(database), await asyncpg.connect(database)
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("LOCK TABLE circuit_breaker_events IN ACCESS EXCLUSIVE MODE")
        async with running(nats, database, spools.parent, drain_s=1) as (service, stopping):
            assert service.recorder is not None
            await service.recorder.record(failed(0)).reached(Ack.REPLICATED)
            await until(lambda: watching.fetchval("SELECT bool_or(wait_event_type = 'Lock') FROM pg_stat_activity"))
            began = time.monotonic()
        assert time.monotonic() - began < 3
        assert stopping.cut_off == ["the projector's batch was rolled back: it will be projected again"]
        await transaction.rollback()
        async with running(nats, database, spools.parent) as (again, _):
            assert await caught_up(again, within_s=stack.DEADLINE_S)
        assert await watching.fetchval("SELECT count(*) FROM circuit_breaker_events") == 1
        await blocker.close()
        await watching.close()


async def test_a_transaction_that_does_not_end_is_cut_off_and_said(database: str, spools: Path) -> None:
    async with nats_server() as nats:
        never = asyncio.Event()
        async with running(nats, database, spools.parent, drain_s=0.5) as (service, stopping):

            async def straggler() -> None:
                async with service.pool.transaction("relight_reader", tenant="acme"):
                    await never.wait()

            straggling = asyncio.create_task(straggler())
            await until(lambda: service.pool.statistics().in_use == 1)
        [said] = stopping.cut_off
        assert "1 transactions were not finished" in said
        never.set()
        await asyncio.gather(straggling, return_exceptions=True)


async def test_serve_listens_before_its_servers_are_there_and_is_ready_once_they_are(home: Path) -> None:
    with stack.folder() as folder:
        nats, postgres = EmbeddedNats(folder), EmbeddedPostgres(folder, durable=False)
        async with nats, postgres:
            pass
        urls = {"nats": nats, "database": postgres.url}
        async with served(folder / "spools", **urls) as one:  # type: ignore[arg-type]
            await until(lambda: _says(one, "waiting for NATS at"), "it says what it waits for")
            assert (await one.get("/livez"))[0] == 200
            assert (await one.get("/v1/queries"))[0] == 503
            async with nats:
                await until(lambda: _says(one, "waiting for PostgreSQL at"), "and what next")
                async with postgres:
                    await one.ready()
                    one.signal()
                    assert await one.ended() == 0, one.errors


async def _says(one: Any, reason: str) -> bool:
    status, document = await one.get("/startupz")
    return status == 503 and reason in document["output"]


async def test_serve_asked_to_stop_while_it_waits_stops_at_once(home: Path) -> None:
    with stack.folder() as folder:
        nowhere = {"nats": "nats://127.0.0.1:1", "database": "postgresql://u:p@127.0.0.1:1/d"}
        async with served(folder, **nowhere) as one:
            await until(lambda: _says(one, "waiting for NATS at 127.0.0.1:1"))
            one.signal()
            assert await one.ended() == 0, one.errors


async def test_serve_does_not_wait_where_waiting_will_not_help(database: str) -> None:
    async with nats_server() as nats:
        with stack.folder() as folder:
            wrong = {
                "refuses the password": (nats.url, database.replace("postgres:", "postgres:wrong", 1)),
                "refuses the credentials": (nats.url.replace("relight:", "relight:wrong", 1), database),
                "was edited after it was applied": (nats.url, database),
            }
            connection = await asyncpg.connect(database)
            for said, (nats_url, database_url) in wrong.items():
                if "edited" in said:
                    await connection.execute("UPDATE relight_migrations SET sha256 = 'x' WHERE version = 194")
                async with served(folder, nats=nats_url, database=database_url) as one:
                    assert await one.ended() == 1
                    assert said in " ".join(one.errors[0].split())
            await connection.close()


async def test_serve_needs_both_addresses() -> None:
    from relight.engine.app.running import run_serve

    with pytest.raises(SettingsError, match="RELIGHT_DATABASE_URL"):
        await run_serve(Settings(nats_url="nats://127.0.0.1:1"), ALL, lambda _: None)


async def test_parts_can_be_run_apart(database: str) -> None:
    async with nats_server() as nats:
        with stack.folder() as folder:
            async with (
                served(folder / "api", "--no-projector", nats=nats, database=database) as api,
                served(folder / "projector", "--no-http", "--no-ingest", nats=nats, database=database) as projector,
                running(nats, database, folder, parts=Parts(projector=False, listens=False)) as (service, _),
            ):
                await api.ready()
                await projector.ready()
                assert service.recorder is not None
                await service.recorder.record(failed(0)).reached(Ack.PROJECTED)
                assert (await projector.get("/v1/queries"))[0] == 404
                assert not list((folder / "projector").rglob("*.db")), "it records nothing"
                for one in (api, projector):
                    one.signal()
                    assert await one.ended() == 0, one.errors


async def test_a_second_signal_cuts_it_short_and_the_exit_code_says_so(database: str) -> None:
    async with nats_server() as nats, connected(nats) as client:
        blocker, watching = await asyncpg.connect(database), await asyncpg.connect(database)
        await blocker.execute("BEGIN; LOCK TABLE circuit_breaker_events IN ACCESS EXCLUSIVE MODE")
        with stack.folder() as folder:
            async with served(folder, nats=nats, database=database, drain_s=60, unready_s=60) as one:
                await one.ready()
                subject, body = stack.encoded(failed(0), id="01900000-0000-7000-a000-000000000000", time=stack.NOW)
                await client.jetstream().publish(subject, body)
                await until(lambda: watching.fetchval("SELECT bool_or(wait_event_type = 'Lock') FROM pg_stat_activity"))
                one.signal()
                await until(lambda: _unready(one), "it says that it stops, and is asked still")
                assert (await one.get("/health"))[0] != 0
                began = time.monotonic()
                one.signal(signal.SIGINT)
                assert await one.ended() == 1
                assert time.monotonic() - began < 10
                assert "cut off: the projector's batch was rolled back" in one.errors[0]
        await blocker.close()
        await watching.close()


async def _unready(one: Any) -> bool:
    return (await one.get("/readyz"))[0] == 503


async def test_readyz_says_no_for_a_while_before_connections_are_refused(database: str) -> None:
    async with nats_server() as nats:
        with stack.folder() as folder:
            async with served(folder, nats=nats, database=database, unready_s=1) as one:
                await one.ready()
                one.signal()
                began = time.monotonic()
                await until(lambda: _unready(one), "it is unready at once")
                while (answer := await one.get("/health"))[0] != 0:
                    assert answer[0] == 200
                    await asyncio.sleep(0.05)
                assert time.monotonic() - began > 0.9
                assert await one.ended() == 0, one.errors
