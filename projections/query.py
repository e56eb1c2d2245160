"""Queries: declared beside the projection whose tables they read, run under the caller's tenant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

DEFAULT_LIMIT = 100
MAX_LIMIT = 10_000
EVER = datetime(1970, 1, 1, tzinfo=UTC)
"""Default of what may be asked since."""


class Row(BaseModel):
    """A row of a query's answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One argument of a query, by name."""

    type: type[str] | type[int] | type[datetime]
    help: str
    default: str | int | datetime | None = None
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Query:
    """A question that operators ask.

    `sql` answers it for one tenant, `who.tenant`, and `order` sorts by columns of its answer; the engine runs it for
    the caller's tenant and the platform's `-`, each as one index range, and merges. `$limit` and `$name` stand for the
    limit and the parameters.
    """

    name: str
    question: str
    row: type[Row]
    sql: str
    order: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def first_id(moment: str, plus_ms: str = "0") -> str:
    """SQL: the lowest id that an event of that moment can have, which an index of ids finds; both are SQL."""
    return (
        f"(lpad(to_hex((extract(EPOCH FROM {moment}) * 1000)::bigint + {plus_ms}), 12, '0')"
        " || '70008000000000000000')::uuid"
    )
