"""The property on which everything rests: any permutation of any events, with any duplication, gives the same rows."""

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from folding import Wire, fold, rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import event_lists

from relight.events.catalog import decode, event_types
from relight.projections.base import Put, State
from relight.projections.catalog import projection_of, projections, tables

PAYLOADS = Path(__file__).parent / "payloads"

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
LONG = settings(max_examples=5_000, deadline=None, suppress_health_check=SLOW_IS_FINE)
SHORT = settings(LONG, max_examples=300)
PROFILE = LONG if os.environ.get("RELIGHT_TEST_LONG") == "1" else SHORT


@st.composite
def twice_told(draw: st.DrawFn) -> tuple[list[Wire], list[Wire]]:
    """Events, and the same in another order with some of them again."""
    events = draw(event_lists())
    again = draw(st.lists(st.sampled_from(events), max_size=len(events)))
    return events, draw(st.permutations(events + again))


def test_any_permutation_with_any_duplication_gives_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    kinds: Counter[str] = Counter()
    filled: Counter[str] = Counter()

    @PROFILE
    @given(twice_told())
    def gives_the_same_rows(told: tuple[list[Wire], list[Wire]]) -> None:
        once, otherwise = ([event for _, _, event in events] for events in told)
        folded = fold(once)
        for order in (otherwise, once[::-1], otherwise[::-1]):
            assert rows_of(fold(order)) == rows_of(folded)
        kinds.update(event.type for event in once)
        filled.update({table.name: sum(1 for _ in folded.rows(table)) for table in tables()})

    gives_the_same_rows()
    with capsys.disabled():
        print(f"\n  {len(kinds)} kinds of event: " + ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items())))
    assert set(kinds) == set(event_types()), "not every kind of event was tried"
    assert {name for name, rows in filled.items() if rows} == {table.name for table in tables()}


def test_every_kind_of_event_but_the_recorders_own_is_folded_by_one_projection() -> None:
    handled = [type for projection in projections() for type in projection.handlers]
    assert sorted(handled) == [type for type in event_types() if not type.startswith("recorder.")]


def test_a_subsystem_has_one_state_table_and_one_history_table() -> None:
    kinds = {projection.name: [type(table).__name__ for table in projection.tables] for projection in projections()}
    assert set(map(tuple, kinds.values())) == {("State", "History")}
    assert len(kinds) == 10


def test_a_column_group_is_written_by_rulings_only_or_by_observations_only() -> None:
    """A ruling's revision beats every observation: a group written by both would never hear of the latter again."""
    writers: dict[tuple[str, str], set[bool]] = defaultdict(set)
    for file in sorted(PAYLOADS.glob("*.json")):
        event = decode(file.read_bytes())
        projection = projection_of(event.type)
        for change in projection.handlers[event.type](event) if projection else ():
            if isinstance(change, Put):
                writers[change.table.name, change.group].add(event.is_control)
    declared = {(table.name, group) for table in tables() if isinstance(table, State) for group in table.groups}
    assert set(writers) == declared
    assert {group for group, kinds in writers.items() if len(kinds) > 1} == set()
