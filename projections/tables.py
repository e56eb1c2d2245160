"""The tables as a value: changes joined in any order, any number of times, give the same rows."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from relight.events.base import Event
from relight.events.envelope import Recorded
from relight.projections.base import Append, Change, Column, History, Projection, Put, State, Value

Version = tuple[int, str]
Key = tuple[str, ...]


class StateRow:
    """What is known of one entity: for each group its version and values, for each set its elements."""

    __slots__ = ("groups", "sets")

    def __init__(self) -> None:
        self.groups: dict[str, tuple[Version, tuple[Value, ...]]] = {}
        self.sets: dict[str, tuple[str, set[str]]] = {}

    def put(self, group: str, version: Version, values: tuple[Value, ...]) -> None:
        held = self.groups.get(group)
        if held is None or held[0] < version:
            self.groups[group] = (version, values)

    def add(self, column: str, event_id: str, element: str) -> None:
        held = self.sets.get(column)
        if held is None:
            self.sets[column] = (event_id, {element})
        else:
            held[1].add(element)
            self.sets[column] = (max(held[0], event_id), held[1])


class Tables:
    """The join of all changes applied so far, to the tables of all projections; holds everything in memory."""

    def __init__(self) -> None:
        self.states: defaultdict[State, dict[Key, StateRow]] = defaultdict(dict)
        self.histories: defaultdict[History, dict[Key, tuple[Value, ...]]] = defaultdict(dict)

    def apply(self, projection: Projection, event: Recorded[Event]) -> None:
        """Joins what `event` means to `projection`; all of it, or nothing when its handler raises."""
        handler = projection.handlers.get(event.type)
        if handler is None:
            return
        for change in list(handler(event)):
            self._join(event, change)

    def _join(self, event: Recorded[Event], change: Change) -> None:
        # Not `match` with positional patterns: twice an event, they cost as much as the join itself.
        if isinstance(change, Append):
            table, values = change
            row = (event.tenant, event.id, event.region, event.time, *_ordered(values, table.columns_, table.name))
            self.histories[table].setdefault((event.tenant, event.id), row)
        elif isinstance(change, Put):
            state, key, group, values, rank = change
            version = (rank if event.rev is None else event.rev, event.id)
            self._row(state, event.tenant, key).put(group, version, _ordered(values, state.groups[group], state.name))
        else:
            state, key, column, element = change
            self._row(state, event.tenant, key).add(column, event.id, element)

    def _row(self, table: State, tenant: str, key: tuple[str, ...]) -> StateRow:
        rows, full_key = self.states[table], (tenant, *key)
        found = rows.get(full_key)
        if found is None:
            found = rows[full_key] = StateRow()
        return found

    def rows(self, table: State | History) -> Iterator[tuple[Value, ...]]:
        """Every row of the table in the order of its primary key's bytes, its columns in the table's order.

        Python compares texts by code point, which is the order of their UTF-8 bytes: that of COLLATE "C".
        """
        if isinstance(table, History):
            held = self.histories.get(table, {})
            yield from (held[key] for key in sorted(held))
        else:
            states = self.states.get(table, {})
            yield from ((*key, *_state_values(table, states[key])) for key in sorted(states))

    def __len__(self) -> int:
        """Rows, over all tables."""
        return sum(map(len, self.states.values())) + sum(map(len, self.histories.values()))


def _ordered(values: Mapping[str, Value], columns: Mapping[str, Column], name: str) -> tuple[Value, ...]:
    """The values in the order of the columns. Raises `TypeError` when they are not exactly these."""
    try:
        ordered = tuple(map(values.__getitem__, columns))
    except KeyError:
        ordered = ()
    if not len(ordered) == len(values) == len(columns):
        raise TypeError(f"{name}: {sorted(values)} are not its columns {sorted(columns)}")
    return ordered


def _state_values(table: State, row: StateRow) -> Iterator[Value]:
    for group, columns in table.groups.items():
        held = row.groups.get(group)
        if held is None:
            yield from (None for _ in range(len(columns) + 2))
        else:
            (rev, event_id), values = held
            yield from values
            yield rev
            yield event_id
    for column in table.sets:
        added = row.sets.get(column)
        yield None if added is None else tuple(sorted(added[1]))
        yield None if added is None else added[0]
