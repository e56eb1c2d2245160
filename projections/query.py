"""Queries: declared beside the projection whose tables they read, run under the caller's tenant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import BaseModel, ConfigDict

DEFAULT_LIMIT = 100
MAX_LIMIT = 10_000


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
