"""Chaos in small: outages, faults of the network and full disks; and that a broken promise would be noticed."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import lacking
from playing import CHAOS, Played, playing
from stack import encoded, failed


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Played]]:
    """One run after the other: what their callers wait for is measured."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(playing(tmp_path, run=arguments))["run"]


def test_nats_and_postgresql_away_and_a_cap_reached_block_nobody_and_lose_nothing(play: Callable[..., Played]) -> None:
    kept = kept_promises(play("away", "--away-s", "6", "--events-per-s", "500"))
    assert sum("record()" in name for name in kept) == 2
    assert any("recorder.gap says" in name for name in kept)


def test_nats_frozen_flapping_deaf_and_half_open_blocks_nobody_and_loses_nothing(play: Callable[..., Played]) -> None:
    assert (
        sum("record()" in name for name in kept_promises(play("wires", "--wires-s", "3", "--events-per-s", "500"))) == 4
    )


def test_full_disks_under_the_spool_and_under_nats_are_said_and_survived(play: Callable[..., Played]) -> None:
    found = play("disk", "--wires-s", "2", "--events-per-s", "1500").figures()
    skipped = [verdict["figure"] for verdict in found["verdicts"] if verdict["name"] == "skipped"]
    if skipped:
        lacking(f"a small disk ({skipped[0]})")


def kept_promises(run: Played) -> list[str]:
    return [verdict["name"] for verdict in run.figures()["verdicts"] if verdict["kept"]]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the files of chaos be imported, as they import each other."""
    monkeypatch.syspath_prepend(CHAOS)


def some(publisher: str = "p-1", events: int = 4) -> list[tuple[str, bytes]]:
    """Ids and bytes of a chain."""
    from relight.engine.clock import Clock
    from relight.engine.log.chain import body_sha256
    from relight.events.envelope import GENESIS

    clock, prev, found = Clock(), GENESIS, []
    for pseq in range(1, events + 1):
        id = clock.next_id()
        _, body = encoded(failed(pseq), id=id, time=clock.now(), pseq=pseq, prev=prev, publisher=publisher)
        prev = body_sha256(body)
        found.append((id, body))
    return found


def broken(bodies: list[bytes], **told: Any) -> set[str]:
    """Which promises are broken where this was told and that stands on the stream."""
    from kept import judge
    from ledger import Told
    from standing import OnStream

    stream = OnStream()
    for body in bodies:
        stream.add(body)
    return {promise for promise, found in judge(Told(**told), stream).broken.items() if found}


@pytest.mark.usefixtures("parts")
def test_whatever_is_lost_doubled_altered_reordered_or_invented_is_noticed() -> None:
    import kept

    events = some()
    ids, bodies = [id for id, _ in events], [body for _, body in events]
    told = {"asked": set(ids), "spooled": {id: ("p-1", pseq) for pseq, id in enumerate(ids, 1)}}
    first, second, third, fourth = bodies
    other = some()[1][1]
    assert broken(bodies, **told) == set()
    assert broken([first, third, fourth], **told) == {kept.SPOOLED, kept.CHAINS}
    assert broken([first, second, third], **told) == {kept.SPOOLED}
    assert broken([*bodies, fourth], **told) == {kept.SPOOLED, kept.NOTHING_ELSE, kept.CHAINS}
    assert broken([first, third, second, fourth], **told) == {kept.CHAINS}
    assert broken([first, second.replace(b"Timeout", b"Tameout"), third, fourth], **told) == {kept.CHAINS}
    assert broken([*bodies, other], **told) == {kept.NOTHING_ELSE, kept.CHAINS}
    assert broken([first, second, third], asked=set(ids), replicated={ids[3]}) == {kept.REPLICATED}
    assert broken(bodies, **told, superseded={ids[1]}) == {kept.SUPERSEDED}
    assert broken(bodies, **told, won={ids[0]: ("p-1", 1), ids[1]: ("p-1", 1)}) == {kept.RULINGS}


@pytest.mark.usefixtures("parts")
def test_half_a_line_of_a_ledger_counts_for_nothing(tmp_path: Path) -> None:
    from ledger import Ledger, Told

    ledger = Ledger(tmp_path / "1.ledger")
    ledger.write("asked", [("a",), ("b",)])
    ledger.write("spooled", [("a", "p-1", 7)])
    with (tmp_path / "1.ledger").open("ab") as file:
        file.write(b'["spooled",[["b","p-')
    told = Told.read(tmp_path)
    assert (told.asked, told.spooled) == ({"a", "b"}, {"a": ("p-1", 7)})


@pytest.mark.usefixtures("parts")
def test_a_kill_before_or_after_the_work_does_not_count_as_inside_it() -> None:
    from kill_figures import Kill

    def kill(seq: int, projected_seq: int) -> Kill:
        at = {"round": 1, "scene": 1, "at_s": 0.0, "spooled_events": 0, "down_s": 0.0, "end_seq": 100}
        return Kill(victim="NATS", how="", seq=seq, projected_seq=projected_seq, **at)  # type: ignore[arg-type]

    inside = [kill(*at).is_inside for at in ((0, 0), (50, 0), (50, 40), (100, 99), (100, 100))]
    assert inside == [False, False, True, False, False]
    assert Counter(inside) == {True: 1, False: 4}
