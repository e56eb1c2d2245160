"""Intelligence: a snapshot gathers the regions that hold a copy."""

from folding import fact, given, id_at, moment

from relight.events.intelligence import (
    IntelligenceReplicationCompleted,
    IntelligenceReplicationFailed,
    IntelligenceReplicationRequested,
    IntelligenceReplicationStarted,
    IntelligenceSnapshotTaken,
)
from relight.events.values import Content
from relight.projections.intelligence import LOGS, SNAPSHOTS

TAKEN = IntelligenceSnapshotTaken(
    snapshot="s",
    snapshot_type="session",
    source_region="eu",
    agent="a-1",
    task="t",
    epoch=3,
    content=Content(sha256="a" * 64, size_bytes=3),
)


def completed(region: str) -> IntelligenceReplicationCompleted:
    return IntelligenceReplicationCompleted(
        snapshot="s", target_region=region, started_at=moment(2), completed_at=moment(3), verified_sha256="a" * 64
    )


def test_a_snapshot_says_where_its_data_lies_and_what_it_hashes_to() -> None:
    [row] = given(TAKEN).when(times=2).then(SNAPSHOTS)
    assert row["data"] == {"sha256": "a" * 64, "size_bytes": 3}
    assert (row["checksum"], row["epoch"], row["taken_at"]) == ("a" * 64, 3, moment(1))
    assert (row["replicated_to"], row["replicated_to_event_id"]) == (None, None)


def test_two_regions_that_finish_a_replication_at_once_are_both_kept() -> None:
    us, ap = fact(completed("us"), tick=5, region="us"), fact(completed("ap"), tick=4, region="ap")
    [row] = given(TAKEN, us, ap).when(times=2).then(SNAPSHOTS)
    assert (row["replicated_to"], row["replicated_to_event_id"]) == (("ap", "us"), id_at(5))


def test_a_copy_that_is_known_before_its_snapshot_is_not_lost() -> None:
    [early] = given(completed("us")).when(times=2).then(SNAPSHOTS)
    assert (early["replicated_to"], early["checksum"]) == (("us",), None)
    [row] = given(completed("us"), TAKEN).when(times=2).then(SNAPSHOTS)
    assert (row["replicated_to"], row["checksum"]) == (("us",), "a" * 64)


def test_every_step_of_a_copy_is_in_the_log_and_a_failed_one_counts_for_nothing() -> None:
    folded = given(
        IntelligenceReplicationRequested(snapshot="s", target_region="us"),
        IntelligenceReplicationStarted(snapshot="s", target_region="us", started_at=moment(2)),
        IntelligenceReplicationFailed(snapshot="s", target_region="us", completed_at=moment(3), reason="store is full"),
    ).when(times=2)
    rows = folded.then(LOGS)
    assert [row["replication_status"] for row in rows] == ["pending", "in_progress", "failed"]
    assert [row["started_at"] for row in rows] == [None, moment(2), None]
    assert (rows[2]["reason"], rows[2]["completed_at"]) == ("store is full", moment(3))
    assert folded.then(SNAPSHOTS) == []
    [done] = given(completed("us")).when(times=2).then(LOGS)
    assert (done["replication_status"], done["verified_checksum"]) == ("completed", "a" * 64)
