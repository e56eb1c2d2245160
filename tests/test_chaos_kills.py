"""Thirty kills under load: whatever was told SPOOLED is in the tables exactly once."""

from pathlib import Path

from playing import playing


def test_thirty_kills_of_publishers_drainers_projectors_nats_and_postgresql_lose_and_double_nothing(
    tmp_path: Path,
) -> None:
    with playing(tmp_path, kills=("kills", "--rounds", "30", "--moment-s", "0.5", "--seed", "7")) as runs:
        found = runs["kills"].figures()
    kills = found["figures"]["kills"]["kills"]
    assert len(kills) == 30
    assert {kill["victim"] for kill in kills} == {"publisher", "drainer", "projector", "NATS", "PostgreSQL"}
    assert found["figures"]["kills"]["told"]["spooled"] > 1_000
