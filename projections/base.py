"""How a projection is written: tables as values, three verbs that commute, and a handler for each kind of event."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from relight.events.base import Event

Value = object
"""What a column holds: text, int, float, bool, aware datetime, a JSON object, a tuple of texts, or None."""


class Column(StrEnum):
    """A column's type: the PostgreSQL name of it."""

    TEXT = "text"
    BIGINT = "bigint"
    FLOAT = "double precision"
    BOOLEAN = "boolean"
    TIME = "timestamptz"
    UUID = "uuid"
    OBJECT = "jsonb"
    TEXTS = "text[]"


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """A table with one row per entity, keyed by (tenant, *key).

    Its other columns form groups: a Put writes a whole group, which carries one version, `<group>_rev` and
    `<group>_event_id`. `sets` are columns that only grow, each with `<set>_event_id`, the highest that added to it.
    """

    name: str
    key: Mapping[str, Column]
    groups: Mapping[str, Mapping[str, Column]]
    sets: tuple[str, ...] = ()

    def columns(self) -> dict[str, Column]:
        """Every column in the order in which rows of this table are read, written and digested."""
        columns = {"tenant": Column.TEXT, **self.key}
        for group, members in self.groups.items():
            columns |= {**members, f"{group}_rev": Column.BIGINT, f"{group}_event_id": Column.UUID}
        for name in self.sets:
            columns |= {name: Column.TEXTS, f"{name}_event_id": Column.UUID}
        return columns

    def primary_key(self) -> tuple[str, ...]:
        return ("tenant", *self.key)


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """A table with one row per event, keyed by (tenant, event_id), that is only ever added to."""

    name: str
    columns_: Mapping[str, Column] = field(repr=False)

    def columns(self) -> dict[str, Column]:
        return {
            "tenant": Column.TEXT,
            "event_id": Column.UUID,
            "region": Column.TEXT,
            "occurred_at": Column.TIME,
            **self.columns_,
        }

    def primary_key(self) -> tuple[str, ...]:
        return ("tenant", "event_id")


class Append(NamedTuple):
    """One history row; tenant, event id, region and time follow from the event."""

    table: History
    values: Mapping[str, Value]


class Put(NamedTuple):
    """One whole group of a state row; of several, the one with the highest (rev, event id) stays.

    A control event's rev is its own. Observations have none and fall back to the id, unless the fact itself knows its
    place in the entity's life: then `rank` stands in for the rev (an outcome outranks `pending`, whoever's clock).
    """

    table: State
    key: tuple[str, ...]
    group: str
    values: Mapping[str, Value]
    rank: int = 0


class Union(NamedTuple):
    """One element into a set of a state row."""

    table: State
    key: tuple[str, ...]
    column: str
    element: str


Change = Append | Put | Union
Handler = Callable[[Any], Iterator[Change]]
"""Takes the `Recorded` of the one kind of event it is registered for."""
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """What one subsystem's events do to its tables."""

    name: str
    version: int
    tables: tuple[State | History, ...]
    handlers: dict[str, Handler] = field(default_factory=dict, repr=False)

    def on(self, *events: type[Event]) -> Callable[[H], H]:
        """Registers the handler of these kinds of event; each kind has one."""

        def register(handler: H) -> H:
            for event in events:
                if self.handlers.setdefault(event.TYPE, handler) is not handler:
                    raise TypeError(f"{self.name}: {event.TYPE} has two handlers")
            return handler

        return register
