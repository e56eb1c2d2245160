"""The audit of a real stream beside real tables: exact where it was harmed, silent where it was not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from stack import Projecting, drained, failed, nats_server, options, projecting

from relight.engine.audit.auditing import audit
from relight.engine.audit.report import Audit
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.log.recorder import Recorder
from relight.engine.log.topology import Headers, connect


@asynccontextmanager
async def reading(nats: EmbeddedNats) -> AsyncIterator[Client]:
    """A client as the command has it."""
    client = await connect(nats.url, name="relight audit", headers=Headers.MESSAGE_ID)
    try:
        yield client
    finally:
        await client.close()


async def audited(nats: EmbeddedNats, projected: Projecting, **changes: Any) -> Audit:
    async with reading(nats) as client:
        return await audit(client, projected.session, now=datetime.now(UTC), **changes)


async def test_what_was_never_touched_has_no_finding(database: str, spools: Path) -> None:
    async with nats_server(sync_always=False) as nats, projecting(nats, database) as projected:
        async with Recorder(options(nats, spools)) as recorder:
            for n in range(200):
                recorder.record(failed(n))
            await drained(recorder)
        await projected.caught_up()
        found = await audited(nats, projected)
        assert found.findings == ()
        assert (found.checked.events, found.checked.publishers, found.position_holds) == (202, 1, True)
        assert (found.unvouched_events, found.absent_sequences, found.tails_in_doubt) == (0, 0, ())
