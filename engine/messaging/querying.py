"""`cmd.query.<tenant>`: a declared query's rows, and how far they are projected at least."""

import asyncio

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from relight.engine.errors import AckTimeout, QueryError
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.messaging.admission import Turns
from relight.engine.recorder.receipts import numbered
from relight.engine.tables.pools import Pool
from relight.engine.tables.positions import PROJECTOR
from relight.engine.tables.queries import find, parse, run
from relight.projections.query import DEFAULT_LIMIT

WAIT_S = 30.0


class QueryCommand(BaseModel):
    """`arguments` by the parameters' names; `wait` is a receipt, to read one's own writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    limit: int = DEFAULT_LIMIT
    wait: str | None = None


class AtLeast(BaseModel):
    """Everything up to this sequence is in the rows; a rewind of the stream begins a new incarnation."""

    incarnation: int
    seq: int


class QueryAnswer(BaseModel):
    """Rows in the query's order; their fields are the query's."""

    name: str
    rows: list[dict[str, JsonValue]]
    position: AtLeast


class Queries:
    """Asks for one tenant at a time, many at once."""

    def __init__(self, pool: Pool, watermarks: ProjectedWatermarks) -> None:
        self._pool = pool
        self._watermarks = watermarks
        # Half of the pool, lest one tenant's slow queries keep the others, and watermarks, from it.
        self._turns = Turns(pool.statistics().size // 2)

    async def ask(self, command: QueryCommand, *, tenant: str, timeout_s: float | None) -> QueryAnswer:
        """Raises `QueryError`, `AckTimeout`, `DeadLettered`, `Unreachable`."""
        query = find(command.name)
        parse(query, command.arguments)
        if command.wait is not None:
            await self._reached(command.wait, WAIT_S if timeout_s is None else timeout_s)
        async with self._turns.of(tenant):
            # Before the rows: they are as new as this, or newer.
            position = await self._position()
            rows = await run(self._pool, query, tenant=tenant, arguments=command.arguments, limit=command.limit)
        return QueryAnswer(name=query.name, rows=[row.model_dump(mode="json") for row in rows], position=position)

    async def _reached(self, token: str, timeout_s: float) -> None:
        try:
            publisher, pseq = numbered(token)
        except ValueError as error:
            raise QueryError(f"wait: {error}") from None
        try:
            async with asyncio.timeout(timeout_s):
                await self._watermarks.reached(publisher, pseq)
        except TimeoutError:
            raise AckTimeout(f"what `wait` names was not projected within {timeout_s:g} s: ask again") from None

    async def _position(self) -> AtLeast:
        async with self._pool.transaction("relight_reader") as connection:
            row = await connection.fetchrow(
                "SELECT incarnation, seq FROM projection_positions WHERE projector = $1", PROJECTOR
            )
        return AtLeast(incarnation=1, seq=0) if row is None else AtLeast(incarnation=row[0], seq=row[1])
