"""What `relight heal` does."""

from contextlib import AsyncExitStack
from datetime import timedelta

from relight.engine.app.connections import CATCH_UP_S, ready_servers
from relight.engine.healing.healer import Round
from relight.engine.healing.service import healing_of
from relight.engine.healing.watching import healer, one_round
from relight.engine.log.topology import REQUEST_TIMEOUT_S, Headers, close, connect, ensure_stream
from relight.engine.service import caught_up
from relight.engine.settings import Settings


async def heal(settings: Settings, *, dry_run: bool) -> Round:
    """One round now: everything is looked through, asked for, and looked for again; with `dry_run` only the first."""
    async with AsyncExitStack() as stack:
        servers, service = await stack.enter_async_context(ready_servers(settings))
        if service is not None:
            await caught_up(service, within_s=CATCH_UP_S)
        client = await connect(servers.nats_url, name="relight heal", headers=Headers.NONE)
        stack.push_async_callback(close, client)
        await ensure_stream(client.jetstream(timeout=REQUEST_TIMEOUT_S))
        healing = healing_of(client, servers, settings, None, lost_after=timedelta())
        session = await healing.connect()
        stack.push_async_callback(session.close, timeout=2)
        mender, _ = await stack.enter_async_context(healer(healing, session))
        if dry_run:
            losses, _ = await mender.audit()
            return Round(missing=losses, healed=(), left=losses)
        async with one_round(session):
            return await mender.heal_all()
