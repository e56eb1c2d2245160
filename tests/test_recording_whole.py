"""All of it together: sealed, evicted, lost, healed from the archive and verified; then all is gone, and restored."""

from pathlib import Path

from nats.aio.client import Client
from recorded import audited
from stack import connected, failed, nats_server, numbers, on_stream, options, until
from test_lifecycle import servers_of

from relight.engine.app.restoring import restore
from relight.engine.health.models import Health
from relight.engine.log.topology import STREAM
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.service import PROJECTOR_ROLE, Parts, serving
from relight.engine.settings import Settings
from relight.engine.spool.spool import Spool
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import Digest, digest_memory, digest_postgres

EVENTS = 300


async def both_digests(client: Client, database: str) -> Digest:
    session = await connect_session(database, role=PROJECTOR_ROLE)
    try:
        memory, postgres = await digest_memory(client), await digest_postgres(session)
    finally:
        await session.close(timeout=2)
    assert memory.tables == postgres.tables
    return postgres


def observed(health: Health, key: str) -> object:
    return next((check.observed for check in health.checks if check.key == key), None)


async def test_what_spools_have_dropped_heals_from_the_archive_and_all_of_it_comes_back(
    database: str, shared_database: str, tmp_path: Path
) -> None:
    archive = str(tmp_path / "archive")
    settings = Settings(home=tmp_path / "home", region="eu", tenant="acme", archive=archive, archive_seal_s=0.3)
    async with (
        nats_server() as nats,
        connected(nats) as client,
        serving(servers_of(nats, database), settings, Parts(listens=False)) as service,
        Recorder(options(nats, tmp_path / "spools", spool_retention_s=0.3)) as recorder,
    ):
        receipts = [recorder.record(failed(n)) for n in range(EVENTS)]
        await receipts[-1].reached(Ack.REPLICATED)
        await receipts[-1].reached(Ack.PROJECTED)
        before = await both_digests(client, database)
        [path] = (tmp_path / "spools").glob("slot-*.db")

        def lowest() -> int:
            spool = Spool(path, read_only=True)
            try:
                return next(iter(spool.pending(0, 1, 1 << 20))).pseq
            finally:
                spool.close()

        await until(lambda: lowest() > EVENTS, "what is sealed has left the spool, whose last event stays")
        await client.jetstream().purge_stream(STREAM, seq=EVENTS - 10)

        async def healed() -> bool:
            return sorted(numbers(await on_stream(client))) == list(range(EVENTS))

        await until(healed, "the service has put back what the spool does not have any more", within_s=40)
        session = await connect_session(database, role=PROJECTOR_ROLE)
        try:

            async def verified() -> bool:
                found = await audited(nats, session)
                return found.is_clean and found.checked.healed_copies >= EVENTS - 20

            await until(verified, "an audit finds nothing, and the healed copies apart")
        finally:
            await session.close(timeout=2)
        after = await both_digests(client, database)
        assert {name: after.tables[name] for name in before.tables} == before.tables

        async def sealed() -> bool:
            last_seq = (await client.jetstream().stream_info(STREAM)).state.last_seq
            return observed(await service.health(), "archive:sealedSequence") == last_seq

        await until(sealed, "all of it is sealed")
        whole = await both_digests(client, database)

    async with nats_server() as empty:
        anew = settings.overridden({"nats_url": empty.url, "database_url": shared_database})
        done = await restore(
            anew, archive, replicas=1, strict=True, dry_run=False, advanced=lambda stage, done, total: None
        )
        assert done.findings == ()
        async with connected(empty) as client:
            restored = await both_digests(client, shared_database)
        assert {name: restored.tables[name] for name in whole.tables} == whole.tables
