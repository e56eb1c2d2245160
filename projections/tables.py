"""The tables as a value: changes joined in any order, any number of times, give the same rows."""

from collections.abc import Iterator

from relight.events.base import Event
from relight.events.envelope import Recorded
from relight.projections.base import Append, Change, History, Projection, Put, State, Union, Value

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
        self.states: dict[State, dict[Key, StateRow]] = {}
        self.histories: dict[History, dict[Key, tuple[Value, ...]]] = {}

    def apply(self, projection: Projection, event: Recorded[Event]) -> None:
        """Joins what `event` means to `projection`; all of it, or nothing when its handler raises."""
        handler = projection.handlers.get(event.type)
        if handler is None:
            return
        for change in list(handler(event)):
            self._join(event, change)

    def _join(self, event: Recorded[Event], change: Change) -> None:
        match change:
            case Append(table, values):
                if values.keys() != table.columns_.keys():
                    raise TypeError(f"{table.name}: {sorted(values)} are not its columns {sorted(table.columns_)}")
                row = (event.tenant, event.id, event.region, event.time, *(values[name] for name in table.columns_))
                self.histories.setdefault(table, {}).setdefault((event.tenant, event.id), row)
            case Put(table, key, group, values, rank):
                columns = table.groups[group]
                if values.keys() != columns.keys():
                    raise TypeError(f"{table.name}.{group}: {sorted(values)} are not its columns {sorted(columns)}")
                version = (rank if event.rev is None else event.rev, event.id)
                self._row(table, event.tenant, key).put(group, version, tuple(values[name] for name in columns))
            case Union(table, key, column, element):
                self._row(table, event.tenant, key).add(column, event.id, element)

    def _row(self, table: State, tenant: str, key: tuple[str, ...]) -> StateRow:
        rows = self.states.setdefault(table, {})
        found = rows.get((tenant, *key))
        if found is None:
            found = rows[(tenant, *key)] = StateRow()
        return found

    def rows(self, table: State | History) -> Iterator[tuple[Value, ...]]:
        """Every row of the table in the order of its primary key's bytes, its columns in the table's order."""
        if isinstance(table, History):
            held = self.histories.get(table, {})
            yield from (held[key] for key in sorted(held, key=_bytewise))
        else:
            states = self.states.get(table, {})
            yield from ((*key, *_state_values(table, states[key])) for key in sorted(states, key=_bytewise))

    def __len__(self) -> int:
        """Rows, over all tables."""
        return sum(map(len, self.states.values())) + sum(map(len, self.histories.values()))


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
        yield None if added is None else tuple(sorted(added[1], key=str.encode))
        yield None if added is None else added[0]


def _bytewise(key: Key) -> tuple[bytes, ...]:
    """PostgreSQL's COLLATE "C" compares UTF-8 bytes."""
    return tuple(part.encode() for part in key)
