"""Intelligence: snapshots of what agents know, and their way into other regions."""

from typing import Any

from relight.events.base import Event
from relight.events.values import Content, Count, Key, Name, Ordinal, Sha256, Text, Time


def _unchanged(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 lacked fields that may be absent."""
    return data


class IntelligenceEvent(Event, entity="snapshot"):
    """What every event of a snapshot carries."""

    snapshot: Key


class IntelligenceSnapshotTaken(
    IntelligenceEvent, type="intelligence.snapshot_taken", version=2, upcasts={1: _unchanged}
):
    """A state was written to the content store of `source_region`.

    `epoch` is the one under which the agent held the task: a snapshot of an older epoch is never resumed from.
    `step`: how many steps of the task it stands after; `schema_version`: of the state's model; `previous`: the snapshot
    that it followed.
    """

    snapshot_type: Key
    source_region: Name
    agent: Key | None = None
    task: Key | None = None
    epoch: Count | None = None
    content: Content
    step: Count | None = None
    schema_version: Ordinal | None = None
    previous: Key | None = None

    @property
    def written_version(self) -> int:
        return 1 if (self.step, self.schema_version, self.previous) == (None, None, None) else self.VERSION


class IntelligenceReplication(IntelligenceEvent):
    """What every report on a copy carries."""

    target_region: Name


class IntelligenceReplicationRequested(IntelligenceReplication, type="intelligence.replication_requested"):
    """The snapshot is to be copied."""


class IntelligenceReplicationStarted(IntelligenceReplication, type="intelligence.replication_started"):
    """The copy is under way."""

    started_at: Time


class IntelligenceReplicationCompleted(IntelligenceReplication, type="intelligence.replication_completed"):
    """The copy stands in the target; `verified_sha256` is of what was read back there, null if it was not."""

    started_at: Time
    completed_at: Time
    verified_sha256: Sha256 | None = None


class IntelligenceReplicationFailed(IntelligenceReplication, type="intelligence.replication_failed"):
    """The copy did not come about; null `started_at`: it never began. It may be tried again."""

    started_at: Time | None = None
    completed_at: Time
    reason: Text
