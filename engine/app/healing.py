"""What `relight heal` does."""

from datetime import timedelta

from relight.engine.app.connections import CATCH_UP_S, ready_servers
from relight.engine.healing.healer import Round
from relight.engine.healing.service import healing_of
from relight.engine.healing.watching import healer, one_round
from relight.engine.service import caught_up
from relight.engine.settings import Settings


async def heal(settings: Settings, *, dry_run: bool) -> Round:
    """One round now: everything is looked through, asked for, and looked for again; with `dry_run` only the first."""
    async with ready_servers(settings) as (servers, service):
        if service is not None:
            await caught_up(service, within_s=CATCH_UP_S)
        async with healer(healing_of(servers, settings, None, lost_after=timedelta())) as (mender, session):
            if dry_run:
                losses, _ = await mender.audit()
                return Round(missing=losses, healed=(), left=losses)
            async with one_round(session):
                return await mender.heal_all()
