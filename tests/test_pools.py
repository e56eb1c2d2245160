"""The pool for requests: bounded, measured, and nothing of a transaction outlives it, whatever the server does."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import stack
from proxy import proxied
from stack import until

from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.errors import AccessRefused, PoolExhausted, Unreachable
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.migrate import migrate
from relight.engine.tables.pools import Pool, PoolOptions, open_pool
from relight.engine.tables.queries import run

READER = "relight_reader"


@asynccontextmanager
async def pooled(url: str, **options: Any) -> AsyncIterator[Pool]:
    async with await open_pool(url, PoolOptions(**options)) as pool:
        yield pool


async def held(pool: Pool, until_set: asyncio.Event) -> None:
    async with pool.transaction(READER, tenant="acme") as connection:
        await connection.fetchval("SELECT 1")
        await until_set.wait()


async def answers(pool: Pool, before: Callable[[], None] = lambda: None) -> int:
    async with pool.transaction(READER, tenant="acme") as connection:
        before()
        return int(await connection.fetchval("SELECT 1"))


async def sleeps(pool: Pool) -> None:
    async with pool.transaction(READER, tenant="acme") as connection:
        await connection.execute("SELECT pg_sleep(20)")


async def loses_its_connection(pool: Pool, database: str, *, readonly: bool) -> None:
    """Having asked something, before its transaction ends."""
    async with pool.transaction("relight_projector", readonly=readonly) as connection:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        ending = await asyncpg.connect(database)
        await ending.execute("SELECT pg_terminate_backend($1, 1000)", pid)
        await ending.close()


async def test_when_all_connections_are_in_use_the_next_is_told_so_within_the_acquire_timeout(database: str) -> None:
    async with pooled(database, size=1, acquire_timeout_s=0.2) as pool:
        done = asyncio.Event()
        holding = asyncio.create_task(held(pool, done))
        await until(lambda: pool.statistics().in_use == 1)
        began = time.monotonic()
        with pytest.raises(PoolExhausted, match="RELIGHT_POOL_SIZE"):
            await answers(pool)
        assert time.monotonic() - began < 1
        assert (pool.statistics().exhausted, pool.statistics().waiting) == (1, 0)
        done.set()
        await holding
        assert await answers(pool) == 1


async def test_a_server_that_hangs_while_connecting_is_no_exhaustion(database: str) -> None:
    async with proxied(database) as proxy, pooled(proxy.url, size=2, acquire_timeout_s=0.3) as pool:
        done = asyncio.Event()
        holding = asyncio.create_task(held(pool, done))
        await until(lambda: pool.statistics().in_use == 1)
        proxy.deaf = True
        refused = await asyncio.gather(*(answers(pool) for _ in range(3)), return_exceptions=True)
        # Only the first one found a connection to be made; for the others there was none left to wait for.
        kinds = sorted(type(error).__name__ for error in refused)
        assert kinds == ["PoolExhausted", "PoolExhausted", "Unreachable"]
        assert pool.statistics().exhausted == 2
        proxy.deaf = False
        proxy.cut()
        done.set()
        await asyncio.gather(holding, return_exceptions=True)
        assert await answers(pool) == 1


async def test_where_no_connection_is_left_and_none_can_be_made_nobody_is_told_of_exhaustion(database: str) -> None:
    async with proxied(database) as proxy, pooled(proxy.url, size=1, acquire_timeout_s=0.3) as pool:
        proxy.deaf = True
        proxy.cut()
        await until(lambda: pool.statistics().idle == 0)
        refused = await asyncio.gather(*(answers(pool) for _ in range(3)), return_exceptions=True)
        assert {type(error) for error in refused} == {Unreachable}
        assert pool.statistics().exhausted == 0


async def test_a_server_that_hangs_at_begin_is_unreachable_and_its_connection_is_made_anew(database: str) -> None:
    async with proxied(database) as proxy, pooled(proxy.url, size=1, acquire_timeout_s=0.3) as pool:
        assert await answers(pool) == 1
        await until(lambda: pool.statistics().in_use == 0)
        proxy.deaf = True
        with pytest.raises(Unreachable, match="did not begin within"):
            await answers(pool)
        proxy.deaf = False
        assert await answers(pool) == 1
        await until(lambda: pool.statistics().in_use == 0)


async def test_the_server_ends_a_statement_that_takes_too_long(database: str) -> None:
    async with pooled(database, size=1, statement_timeout_s=0.2) as pool:
        began = time.monotonic()
        with pytest.raises(asyncpg.QueryCanceledError, match="statement timeout"):
            await sleeps(pool)
        assert time.monotonic() - began < 1, "and before the client does"
        assert await answers(pool) == 1
        async with pool.acquire() as connection:
            assert await connection.fetchval("SHOW statement_timeout") == "0", "nothing is left of it"


async def test_a_server_that_hangs_in_a_statement_costs_its_connection_and_no_more_than_the_timeout(
    database: str,
) -> None:
    async with proxied(database) as proxy:
        async with pooled(proxy.url, size=1, statement_timeout_s=0.2, acquire_timeout_s=1) as pool:
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                await answers(pool, lambda: setattr(proxy, "deaf", True))
            assert time.monotonic() - began < 5
            proxy.deaf = False
            assert await answers(pool) == 1
            await until(lambda: pool.statistics().in_use == 0)


async def test_statistics_are_right_under_load(database: str) -> None:
    async with pooled(database, size=4) as pool:
        done, users = asyncio.Event(), 40
        holding = [asyncio.create_task(held(pool, done)) for _ in range(users)]
        await until(lambda: pool.statistics().in_use == 4 and pool.statistics().waiting == users - 4)
        await asyncio.sleep(0.1)  # what the others wait at least
        loaded = pool.statistics()
        assert (loaded.size, loaded.idle, loaded.acquired) == (4, 0, 4)
        done.set()
        await asyncio.gather(*holding)
        await until(lambda: pool.statistics().in_use == 0)
        calm = pool.statistics()
        assert (calm.in_use, calm.waiting, calm.acquired, calm.exhausted) == (0, 0, users, 0)
        assert calm.idle == 4
        assert calm.acquire_p50_ms is not None
        assert calm.acquire_p99_ms is not None
        assert 100 <= calm.acquire_p50_ms <= calm.acquire_p99_ms
        for _ in range(1_000):
            await answers(pool)
        again = pool.statistics().acquire_p99_ms
        assert again is not None
        assert again < 100, "of the last 1,000 none had to wait"


async def test_draining_finishes_what_is_at_hand_and_takes_nothing_new(database: str) -> None:
    async with pooled(database, size=1, drain_s=10) as pool:
        done = asyncio.Event()
        holding = [asyncio.create_task(held(pool, done)) for _ in range(2)]
        await until(lambda: pool.statistics().waiting == 1)
        closing = asyncio.create_task(pool.close())
        await asyncio.sleep(0)
        with pytest.raises(Unreachable, match="this process stops"):
            await answers(pool)
        assert not closing.done()
        done.set()
        await asyncio.gather(*holding)
        assert await closing == 0
        assert await pool.close() == 0
        assert pool.statistics().idle == 0


async def test_stragglers_are_cut_off_at_the_deadline_and_counted(database: str) -> None:
    async with pooled(database, size=2) as pool:
        never = asyncio.Event()
        holding = [asyncio.create_task(held(pool, never)) for _ in range(2)]
        await until(lambda: pool.statistics().in_use == 2)
        waiting = asyncio.create_task(answers(pool))
        await until(lambda: pool.statistics().waiting == 1)
        began = time.monotonic()
        assert await pool.close(within_s=0.2) == 2
        assert time.monotonic() - began < 1
        with pytest.raises(Unreachable):
            await waiting
        never.set()
        await asyncio.gather(*holding, return_exceptions=True)
        assert await pool.close() == 2
        assert pool.statistics().cut_off == 2


async def test_a_request_after_the_server_was_restarted_does_not_fail() -> None:
    with stack.folder() as home:
        async with EmbeddedPostgres(home, durable=False) as postgres:
            session = await connect_session(postgres.url)
            await migrate(session)
            await session.close()
            async with pooled(postgres.url, size=4) as pool:
                for restart in (postgres.stop, postgres.kill):
                    await asyncio.gather(*(answers(pool) for _ in range(4)))
                    await restart()
                    with pytest.raises(Unreachable):
                        await run(pool, "breakers.open_now", tenant="acme")
                    await postgres.start()
                    assert await run(pool, "breakers.open_now", tenant="acme") == []


async def test_a_connection_that_died_unnoticed_is_replaced_before_anything_was_asked(
    database: str, pgbouncer: Callable[[str, tuple[str, ...]], str]
) -> None:
    for url in (database, pgbouncer(database, ())):
        async with pooled(url, size=3) as pool:
            for _ in range(5):
                await asyncio.gather(*(answers(pool) for _ in range(3)))
                ending = await asyncpg.connect(database)
                await ending.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                assert await answers(pool) == 1
                await ending.close()


async def test_a_request_that_was_under_way_is_not_asked_again_by_itself(database: str) -> None:
    async with pooled(database, size=1) as pool:
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await loses_its_connection(pool, database, readonly=False)
        assert pool.statistics().begun_again == 0


async def test_whoever_is_cancelled_at_any_moment_leaves_no_transaction_behind(database: str) -> None:
    """While BEGIN is on its way, too: asyncpg takes that transaction for one that cannot be rolled back."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    async with pooled(database, size=1) as pool:
        await answers(pool)
        for turns in range(60):
            asking = asyncio.create_task(answers(pool))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
        assert await answers(pool) == 1
    assert complaints == []


async def test_a_read_that_cannot_be_committed_has_its_answers_all_the_same(database: str) -> None:
    async with pooled(database, size=1) as pool:
        await loses_its_connection(pool, database, readonly=True)
        assert await answers(pool) == 1


LEFT_BEHIND = """
SELECT (SELECT count(*) FROM pg_prepared_statements), current_setting('role'),
       coalesce(current_setting('relight.tenant', true), ''), current_setting('statement_timeout'), pg_backend_pid()
"""


async def test_nothing_of_a_transaction_is_left_on_a_connection_that_all_share(
    database: str, pgbouncer: Callable[[str, tuple[str, ...]], str]
) -> None:
    url = pgbouncer(database, ())
    async with pooled(url, size=4, statement_timeout_s=7) as pool, pooled(url, size=4, statement_timeout_s=8) as other:
        looking = await asyncpg.connect(url, statement_cache_size=0)
        pids = set()

        async def ask(pool: Pool, tenant: str, timeout: str) -> None:
            async with pool.transaction(READER, tenant=tenant) as connection:
                row = await connection.fetchrow(LEFT_BEHIND)
                assert row is not None
                assert tuple(row.values())[:4] == (0, READER, tenant, timeout)
                pids.add(row["pg_backend_pid"])
            assert await run(pool, "breakers.open_now", tenant=tenant) == []

        for n in range(10):
            await asyncio.gather(*(ask(pool, f"t{n}", "7s") for _ in range(4)), ask(other, "other", "8s"))
            row = await looking.fetchrow(LEFT_BEHIND)
            assert row is not None
            assert tuple(row.values())[:4] == (0, "none", "", "0")
            pids.add(row["pg_backend_pid"])
        assert len(pids) == 1, "they did share it"
        async with pooled(url, statement_timeout_s=0.05) as hasty:
            with pytest.raises(asyncpg.QueryCanceledError):
                await sleeps(hasty)
        assert await looking.fetchval("SHOW statement_timeout") == "0"
        await looking.close()


async def test_a_query_takes_four_round_trips(database: str) -> None:
    """Should asyncpg rename what tables/statements.py overrides, it takes six."""
    async with proxied(database) as proxy, pooled(proxy.url, size=1) as pool:
        await run(pool, "breakers.open_now", tenant="acme")
        before = proxy.asked
        for _ in range(10):
            await run(pool, "breakers.open_now", tenant="acme")
        assert proxy.asked - before == 40, "BEGIN, who is asking, the query, COMMIT"


async def test_a_column_that_changed_its_type_is_read_anew_after_a_while(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    altering = await asyncpg.connect(database)
    await altering.execute(
        "CREATE TABLE changing (n integer); INSERT INTO changing VALUES (7); GRANT ALL ON changing TO PUBLIC"
    )

    async def read(pool: Pool) -> object:
        async with pool.transaction(READER, tenant="acme") as connection:
            return await connection.fetchval("SELECT n FROM changing WHERE $1", True)

    async with pooled(database, size=1) as pool:
        assert await read(pool) == 7
        await altering.execute("ALTER TABLE changing ALTER n TYPE text")
        monkeypatch.setattr("relight.engine.tables.statements.KNOWN_S", 0.0)
        assert await read(pool) == "7"
    await altering.close()


async def test_a_wrong_password_is_told_apart_from_a_server_that_is_away(database: str) -> None:
    wrong = database.replace("postgres:", "postgres:wrong", 1)
    with pytest.raises(AccessRefused, match="password"):
        await open_pool(wrong)
    with pytest.raises(AccessRefused, match="no such database"):
        await open_pool(database.rpartition("/")[0] + "/nothing?sslmode=disable")


async def test_a_session_has_its_timeouts_and_is_kept_alive(database: str) -> None:
    session = await connect_session(
        database, role="relight_projector", statement_timeout_s=0.2, idle_in_transaction_s=0.3, name="relight-test"
    )
    shown = [
        await session.fetchval(f"SHOW {name}")
        for name in ("application_name", "role", "tcp_keepalives_idle", "statement_timeout")
    ]
    assert shown == ["relight-test", "relight_projector", "5", "200ms"]
    with pytest.raises(asyncpg.QueryCanceledError, match="statement timeout"):
        await session.execute("SELECT pg_sleep(20)")
    if session.get_server_version() >= (17,):
        assert await session.fetchval("SHOW transaction_timeout") == "400ms"
    await session.execute("BEGIN; SET LOCAL transaction_timeout = 0")
    await until(session.is_closed, "the server ends whoever stops in the middle of a transaction")
