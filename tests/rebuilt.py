"""What tests of rebuilds share: the two sessions that one takes, a rebuild, a rollback, and a look at the tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import stack
from nats.aio.client import Client
from stack import Projecting

from relight.engine.clock import Clock
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.rebuild import Rebuild, Rebuilt
from relight.engine.tables.rollback import roll_back
from relight.projections.base import Projection
from relight.projections.catalog import projections

OF_SET = "SELECT count(*) FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p')"
PUBLIC = """
SELECT relname::text AS name, oid FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1
"""


@asynccontextmanager
async def sessions(database: str) -> AsyncIterator[tuple[Session, Session]]:
    keeper, builder = [
        await connect_session(database, role=stack.ROLE, name=f"rebuild of the test, {name}") for name in ("one", "two")
    ]
    try:
        yield keeper, builder
    finally:
        for session in (keeper, builder):
            await session.close(timeout=2)


async def rebuild(client: Client, database: str, *chosen: Projection, **changes: Any) -> Rebuilt:
    async with sessions(database) as (keeper, builder):
        return await Rebuild(client, keeper, builder, chosen or projections(), clock=Clock(), **changes).run()


async def rolled_back(client: Client, database: str) -> int:
    async with sessions(database) as (keeper, builder):
        return (await roll_back(client, keeper, builder, clock=Clock())).events


async def set_size(projected: Projecting, name: str) -> int:
    return int(await projected.session.fetchval(OF_SET, f"public_{name}"))


async def generation(projected: Projecting) -> int:
    return int(await projected.session.fetchval("SELECT generation FROM projection_positions"))
