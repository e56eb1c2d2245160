"""A connection that remembers the types of its statements but leaves none of them on the server."""

import time
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    AsyncpgConnection = asyncpg.Connection[asyncpg.Record]
else:
    AsyncpgConnection = asyncpg.Connection

KNOWN_STATEMENTS = 200
KNOWN_S = 60.0
"""How long a table whose columns change their types may be misread; migrations never change them (they only add)."""


class Connection(AsyncpgConnection):
    """Asks each statement in one round trip instead of two, and has the server parse it once instead of twice.

    Where asyncpg may keep no prepared statement it describes the unnamed one first, and sends it anew with its
    arguments. Here the description is remembered; what is sent is the same unnamed statement with its arguments, in one
    message, so that a PgBouncer in transaction mode is as safe. Overrides a private method of asyncpg's: should it be
    renamed, tests/test_pools.py fails and only the speed goes.
    """

    __slots__ = ("_known", "_known_since")

    async def _get_statement(
        self, query: str, timeout: float | None, *, named: str | bool | None = False, **options: Any
    ) -> Any:
        get = super()._get_statement  # type: ignore[misc]  # not in the stubs
        if named or options.get("use_cache") is False:
            return await get(query, timeout, named=named, **options)
        known = self._fresh()
        key = (query, options.get("ignore_custom_codec"), options.get("record_class"))
        if (statement := known.get(key)) is None:
            statement = await get(query, timeout, named=named, **options)
            if len(known) >= KNOWN_STATEMENTS:
                known.clear()
            known[key] = statement
        statement.mark_unprepared()
        return statement

    async def reload_schema_state(self) -> None:
        """asyncpg calls it when a type is no longer what it was."""
        self._known: dict[object, Any] = {}
        await super().reload_schema_state()

    def _fresh(self) -> dict[object, Any]:
        now = time.monotonic()
        if now - getattr(self, "_known_since", 0.0) > KNOWN_S:
            self._known, self._known_since = {}, now
        return self._known
