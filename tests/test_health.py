"""Health: every fault shows within 2 s with its reason, and nothing else is blamed for it."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import stack
from fastapi import FastAPI
from nats.js.api import StreamConfig
from observing import found, frozen, probing, recorded
from stack import connected, nats_server, projecting, until

from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.errors import PoolExhausted
from relight.engine.health.chains import Chains, chain_checks
from relight.engine.health.document import MEDIA_TYPE, document, flat, read_document, read_flat
from relight.engine.health.models import CheckStatus, Health, Status
from relight.engine.health.postgres import Counts, DatabaseLook, Tables
from relight.engine.health.projection import Place, event_checks, lag, lag_checks
from relight.engine.health.readiness import Readiness
from relight.engine.health.spools import exposed_spools, spool_checks
from relight.engine.health.stream import StreamLook
from relight.engine.http.health import health_routes
from relight.engine.http.server import http_server
from relight.engine.log.topology import connect
from relight.engine.recorder.receipts import Ack
from relight.engine.spool.listing import list_spools
from relight.engine.tables.migrate import migrate
from relight.engine.tables.pools import PoolOptions, open_pool

WITHIN_S = 2.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def own_postgres() -> AsyncIterator[EmbeddedPostgres]:
    """One that a test may stop; its database has all tables."""
    with stack.folder() as home:
        async with EmbeddedPostgres(home, durable=False) as server:
            connection = await asyncpg.connect(server.url)
            await migrate(connection)
            await connection.execute(
                "CHECKPOINT"
            )  # it commits asynchronously: a kill would take the last migration back
            await connection.close()
            yield server


async def in_time(probe: "stack.Any") -> Health:
    """A look anew, and none that took longer than it may."""
    await asyncio.sleep(0.3)  # the last one is no longer fresh
    began = time.monotonic()
    health: Health = await probe.check()
    assert time.monotonic() - began < WITHIN_S
    return health


async def test_all_is_well_and_every_check_says_what_it_observed(database: str, spools: Path) -> None:
    async with nats_server() as nats, projecting(nats, database) as work:
        await recorded(nats, 10)
        await work.caught_up()
        async with (
            await open_pool(database) as pool,
            probing(nats, database, client=work.client, home=spools, projector=work.projector, pool=pool) as probe,
        ):
            health = await probe.check()
            assert (health.status, health.reasons) == (Status.HEALTHY, [])
            figures = health.figures
            assert (figures.seq, figures.last_seq, figures.lag_events, figures.lag_s, figures.stood_still_s) == (
                12,
                12,
                0,
                0.0,
                0.0,
            )
            assert (figures.gaps, figures.missing_events, figures.forks, figures.dead_letters) == (0, 0, 0, 0)
            assert figures.projector == "live"
            assert found(health, "fsync:proof").observed == "proven"
            assert abs(float(str(found(health, "clock:offset", "nats").observed))) < 1_000
            assert abs(float(str(found(health, "clock:offset", "postgres").observed))) < 1_000
            again = read_document(document(health))
            assert {(c.key, c.id): c for c in again.checks} == {(c.key, c.id): c for c in health.checks}
            assert read_flat(flat(health).model_dump_json().encode()) == health
            assert (again.service_id, again.release) == (health.service_id, health.release)


async def test_a_flood_of_questions_is_one_look(database: str) -> None:
    async with nats_server() as nats, connected(nats) as client:
        async with probing(nats, database, client=client) as probe:
            answers = await asyncio.gather(*(probe.check() for _ in range(500)))
            assert len({id(answer) for answer in answers}) == 1
            later = await in_time(probe)
            assert later is not answers[0]


async def test_whoever_stops_waiting_does_not_stop_the_look_for_others(database: str) -> None:
    async with nats_server() as nats, connected(nats) as client:
        async with probing(nats, database, client=client) as probe:
            first, second = (asyncio.create_task(probe.check()) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            assert (await second).status is Status.HEALTHY


async def test_a_postgres_that_hangs_shows_within_2_s_and_lag_is_told_all_the_same() -> None:
    async with own_postgres() as postgres, nats_server() as nats, projecting(nats, postgres.url) as work:
        await recorded(nats, 5)
        await work.caught_up()
        async with probing(nats, postgres.url, client=work.client, projector=work.projector) as probe:
            assert (await probe.check()).status is Status.HEALTHY
            with frozen(postgres.pid):
                await recorded(nats, 5)
                for _ in range(2):
                    health = await in_time(probe)
                    assert health.status is Status.UNHEALTHY
                    assert found(health, "postgres:responseTime").status is CheckStatus.FAIL
                    assert "PostgreSQL does not answer" in health.reasons[0]
                    assert found(health, "nats:responseTime").status is CheckStatus.PASS
                assert (health.figures.seq, health.figures.lag_events) == (7, 7)
                assert health.figures.dead_letters is None, "what cannot be asked is not invented"
                assert (health.figures.lag_s or 0) > 0
            await work.caught_up()
            await until(lambda: _healthy(probe), "healthy again")


async def _healthy(probe: "stack.Any") -> bool:
    return (await probe.check()).status is Status.HEALTHY


async def test_a_postgres_that_refuses_shows_within_2_s_and_its_return_is_noticed() -> None:
    async with own_postgres() as postgres, nats_server() as nats, connected(nats) as client:
        async with probing(nats, postgres.url, client=client) as probe:
            assert (await probe.check()).status is Status.HEALTHY
            await postgres.kill()
            health = await in_time(probe)
            assert (health.status, "PostgreSQL" in health.reasons[0]) == (Status.UNHEALTHY, True)
            await postgres.start()
            await until(lambda: _healthy(probe), "healthy again")


@pytest.mark.parametrize("how", ["hangs", "is killed"])
async def test_a_nats_that_is_away_shows_within_2_s(database: str, how: str) -> None:
    async with nats_server() as nats, connected(nats) as client, probing(nats, database, client=client) as probe:
        assert (await probe.check()).status is Status.HEALTHY
        if how == "hangs":
            with frozen(nats.pid):
                health = await in_time(probe)
        else:
            await nats.kill()
            health = await in_time(probe)
            await nats.start()
        assert health.status is Status.UNHEALTHY
        assert "NATS does not answer" in health.reasons[0]
        assert found(health, "postgres:responseTime").status is CheckStatus.PASS
        assert health.figures.lag_events is None
        await until(lambda: _healthy(probe), "healthy again")


async def test_an_exhausted_pool_is_not_a_postgres_that_is_away(database: str) -> None:
    options = PoolOptions(size=1, acquire_timeout_s=0.05)
    async with nats_server() as nats, connected(nats) as client, await open_pool(database, options) as pool:
        async with probing(nats, database, client=client, pool=pool) as probe, pool.acquire():
            with pytest.raises(PoolExhausted):
                async with pool.acquire():
                    pass
            health = await probe.check()
            assert health.status is Status.DEGRADED
            assert ["RELIGHT_POOL_SIZE" in reason for reason in health.reasons] == [True]
            assert found(health, "postgres:responseTime").status is CheckStatus.PASS
            waiting = asyncio.create_task(pool.acquire().__aenter__())
            await asyncio.sleep(0)
            assert found(await in_time(probe), "pool:connections").observed == {
                "in_use": 1,
                "idle": 0,
                "size": 1,
                "waiting": 0,
            }
            with pytest.raises(PoolExhausted):
                await waiting


async def test_lag_and_standing_still_appear_when_no_projector_runs_and_go_when_one_does(database: str) -> None:
    async with nats_server() as nats, connected(nats) as client, probing(nats, database, client=client) as probe:
        async with projecting(nats, database) as work:
            await recorded(nats, 3)
            await work.caught_up()
            assert (await probe.check()).figures.stood_still_s == 0
        await recorded(nats, 3)
        first, second = await in_time(probe), await in_time(probe)
        assert first.figures.lag_events == second.figures.lag_events == 5
        assert 0 < (first.figures.lag_s or 0) < (second.figures.lag_s or 0)
        assert 0 < (first.figures.stood_still_s or 0) < (second.figures.stood_still_s or 0)
        async with projecting(nats, database) as work:
            await work.caught_up()
            figures = (await in_time(probe)).figures
            assert (figures.lag_events, figures.lag_s, figures.stood_still_s) == (0, 0, 0)


def test_standing_still_counts_only_while_something_waits() -> None:
    idle_for_an_hour = Place(position="1:7:-", seq=7, moved_at=None, still_s=3_600)
    stream = StreamLook(response_ms=1, server_now=NOW, last_seq=9)
    behind = lag(idle_for_an_hour, stream, NOW - timedelta(seconds=2))
    assert (behind.events, behind.seconds, behind.stood_still_s) == (2, 2, 2)
    catching_up = Place(position="1:7:-", seq=7, moved_at=None, still_s=0.1)
    behind = lag(catching_up, stream, NOW - timedelta(hours=1))
    assert (behind.seconds, behind.stood_still_s) == (3_600, 0.1)
    shown = {check.measurement: check for check in lag_checks(catching_up, behind, NOW)}
    assert shown["lagTime"].status is CheckStatus.WARN
    assert "catching up" in (shown["lagTime"].output or "")
    assert shown["stoodStill"].status is CheckStatus.PASS
    still = lag(idle_for_an_hour, stream, NOW - timedelta(seconds=11))
    shown = {check.measurement: check for check in lag_checks(idle_for_an_hour, still, NOW)}
    assert shown["stoodStill"].status is CheckStatus.WARN


def test_each_kind_of_fault_among_events_has_its_reason() -> None:
    counts = Counts(gaps=1, missing_events=2, refused_events=3, dead_letters=5)
    tables = Tables(position="1:1:-", seq=1, moved_at=NOW, still_s=0, counts=counts)
    checks = list(event_checks(DatabaseLook(response_ms=1, tables=tables), NOW))
    assert [check.output.split()[0] for check in checks if check.output] == ["2", "3", "5"]
    chains = Chains(
        forks=5,
        named_forks=["a 7", "b 1"],
        broken_links=2,
        named_links=["c"],
        doubts=1,
        named_doubts=["d after 9"],
    )
    told = [check.output or "" for check in chain_checks(chains, NOW)]
    assert [output.split()[0] for output in told] == ["5", "2", "1"]
    assert ["a 7, b 1 and others" in told[0], "(d after 9)" in told[2]] == [True, True]
    none = Chains(forks=0, named_forks=[], broken_links=0, named_links=[], doubts=0, named_doubts=[])
    assert not [check.output for check in chain_checks(none, NOW) if check.output]


async def test_counting_that_takes_too_long_does_not_read_as_a_postgres_that_is_away(database: str) -> None:
    async with nats_server() as nats, connected(nats) as client, probing(nats, database, client=client) as probe:
        holder = await asyncpg.connect(database)
        async with holder.transaction():
            await holder.execute("LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE")
            health = await in_time(probe)
            assert health.status is Status.DEGRADED
            assert "could not be counted" in health.reasons[0]
            assert health.figures.dead_letters is None
        await holder.close()
        await until(lambda: _healthy(probe), "healthy again")


async def test_a_database_without_our_tables_says_which_migrations_lack(postgres: str) -> None:
    async with nats_server() as nats, connected(nats) as client, probing(nats, postgres, client=client) as probe:
        health = await probe.check()
        assert health.status is Status.UNHEALTHY
        assert ["193_engine.sql" in reason for reason in health.reasons] == [True]
        assert "relight migrate" in health.reasons[0]


async def test_a_newer_release_may_have_migrated_already(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("INSERT INTO relight_migrations VALUES (999, '999_newer.sql', 'x')")
    await connection.close()
    async with nats_server() as nats, connected(nats) as client, probing(nats, database, client=client) as probe:
        assert (await probe.check()).reasons == []


async def test_servers_that_do_not_fsync_and_a_stream_declared_otherwise_are_warned_of(database: str) -> None:
    async with nats_server(sync_always=False) as nats:
        client = await connect(nats.url, name="test")
        async with probing(nats, database, client=client) as probe:
            health = await probe.check()
            assert (health.status, "stream not found" in health.reasons[0]) == (Status.UNHEALTHY, True)
            await client.jetstream().add_stream(config=StreamConfig(name="EV", subjects=["ev.>"], max_msgs=10))
            for n in range(9):
                await client.jetstream().publish("ev.x", str(n).encode())

            async def asked_again() -> bool:
                return "sync_interval: always" in (found(await probe.check(), "fsync:proof").output or "")

            await until(asked_again, "the proof is asked anew")
            health = await in_time(probe)
            assert health.status is Status.DEGRADED
            settings = found(health, "stream:settings").output or ""
            for fault in ("ctl.>", "discard is not new", "allow_atomic is off", "deny_delete is off"):
                assert fault in settings
            assert found(health, "stream:utilization").observed == 90
        await client.close()


async def test_spools_that_wait_and_spools_that_cannot_be_read_are_shown(spools: Path) -> None:
    async with nats_server() as nats:
        await nats.kill()
        async with stack.Recorder(stack.options(nats, spools)) as recorder:
            await recorder.record(stack.failed(1)).reached(Ack.SPOOLED)
            (spools / "slot-9.db").write_bytes(b"no database" * 100)
            shown = exposed_spools(spools, now_ms=int(time.time() * 1_000) + 60_000)
            assert (shown.spools, shown.events) == (2, 2)
            assert 60 <= (shown.oldest_s or 0) < 90
            assert ["slot-9.db" in fault for fault in shown.unreadable] == [True]
            [(_, held)] = [
                (check.id, check.observed)
                for check in spool_checks(list_spools(spools), datetime.now(UTC))
                if check.key == "spools:exposed"
            ]
            assert held["events"] == 2  # type: ignore[index, call-overload]
            assert held["state"] == "live"  # type: ignore[index, call-overload]


def _get(url: str, method: str = "GET") -> tuple[int, str, str]:
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers["content-type"], response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read().decode()


async def test_the_endpoints_answer_what_orchestrators_ask() -> None:
    async with own_postgres() as postgres, nats_server() as nats, connected(nats) as client:
        async with probing(nats, postgres.url, client=client) as probe:
            readiness = probe.readiness = Readiness()
            app = FastAPI()
            app.include_router(health_routes(probe, readiness))
            async with http_server(app, host="127.0.0.1", port=0) as served:

                async def get(path: str, method: str = "GET") -> tuple[int, str, str]:
                    return await asyncio.to_thread(_get, served.url + path, method)

                assert (await get("/startupz"))[0] == (await get("/readyz"))[0] == 503
                assert (await get("/livez"))[0::2] == (200, "ok")
                readiness.ready()
                assert (await get("/startupz"))[0::2] == (200, "ok")
                assert (await get("/readyz"))[0::2] == (200, "ok")
                status, _, text = await get("/readyz?verbose")
                assert status == 200
                assert text.splitlines() == ["[+]phase ok", "readyz check passed"]
                await until(lambda: _healthy(probe))
                status, kind, text = await get("/health")
                assert (status, kind, json.loads(text)["status"]) == (200, MEDIA_TYPE, "pass")
                assert await get("/health", "HEAD") == (200, MEDIA_TYPE, "")

                with frozen(postgres.pid):
                    began = time.monotonic()
                    await until(lambda: _status(get("/health"), 503))
                    assert time.monotonic() - began < WITHIN_S
                    assert json.loads((await get("/health"))[2])["status"] == "fail"
                    assert (await get("/readyz"))[0] == 200, "all replicas would leave together, with what they can do"
                    assert (await get("/livez"))[0] == 200, "a restart would not help"

                probe.vital.watch("projector", asyncio.create_task(_ends()))
                await until(lambda: probe.vital.dead())
                assert (await get("/livez"))[0] == 503
                assert "[-]projector failed" in (await get("/livez"))[2]
                readiness.draining()
                status, _, text = await get("/readyz")
                assert (status, "[-]phase failed: stopping" in text) == (503, True)
                assert (await get("/livez"))[0] == 200, "what ends while stopping was ended by us"
                assert (await get("/startupz"))[0] == 200


async def _ends() -> None:
    return None


async def _status(asking: "stack.Any", wanted: int) -> bool:
    return bool((await asking)[0] == wanted)
