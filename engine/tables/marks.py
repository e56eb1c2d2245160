"""What retention has trimmed: per history table and tenant, the id below which rows may be gone."""

from collections.abc import Iterable
from datetime import datetime

from pydantic import BaseModel

from relight.engine.tables.connecting import Connection
from relight.projections.base import History
from relight.projections.tables import Tables


class Mark(BaseModel):
    """Rows of this tenant with lower ids than `below` were trimmed where the stream held their event."""

    table: str
    tenant: str
    below: str
    trimmed_rows: int
    trimmed_by: str
    trimmed_at: datetime


class Marks:
    """The highest mark of every table and tenant."""

    def __init__(self, marks: Iterable[Mark]) -> None:
        self._below: dict[str, dict[str, str]] = {}
        for mark in marks:
            of_table = self._below.setdefault(mark.table, {})
            of_table[mark.tenant] = max(mark.below, of_table.get(mark.tenant, ""))

    def of(self, table: History) -> dict[str, str]:
        """By tenant, the id below which rows may be gone."""
        return self._below.get(table.name, {})

    def drop_trimmed(self, tables: Tables) -> None:
        """Leaves out every history row below its mark."""
        for table, rows in list(tables.histories.items()):
            if below := self.of(table):
                for key in [key for key in rows if key[1] < below.get(key[0], "")]:
                    del rows[key]
                if not rows:
                    del tables.histories[table]


async def load_marks(connection: Connection) -> list[Mark]:
    """All of them, by table and tenant, the latest trimming last."""
    rows = await connection.fetch(
        'SELECT table_name AS "table", tenant, below::text, trimmed_rows, trimmed_by, trimmed_at FROM retention_marks'
        " ORDER BY table_name, tenant, below"
    )
    return [Mark.model_validate(dict(row)) for row in rows]
