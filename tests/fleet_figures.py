"""What the stream and the processes of `fleet_processes.py` say of one of its rounds."""

from dataclasses import dataclass
from typing import Any

from relight.engine.log.reader import Message
from relight.events.base import Event
from relight.events.catalog import decode
from relight.events.envelope import Recorded


@dataclass(frozen=True, kw_only=True)
class Round:
    """`events` of the round's breaker with their sequences; milliseconds from the quorum's last vote on the stream."""

    events: list[tuple[int, Recorded[Event]]]
    stored_ms: float
    """Until the stream had the ruling, fsynced."""
    refused_ms: list[float]
    """Until a process let no call pass any more."""
    known_ms: list[float]
    """Until it knew the ruling."""
    raw_ms: list[float]
    """Until a plain subscription of the same client had the message, fsynced or not."""

    @property
    def rulings(self) -> list[Recorded[Event]]:
        return [event for _, event in self.events if event.rev is not None]


def figures(said: dict[str, Any], messages: list[Message]) -> Round:
    ours = [(message, event) for message in messages if (event := decode(message.body)).subject == said["service"]]
    stored, opened = next((message, event) for message, event in ours if event.type == "breakers.opened")
    quorum_ns = max(
        message.timestamp_ns
        for message, event in ours
        if event.type == "breakers.tripped" and message.seq <= (opened.observedseq or 0)
    )
    children = said["children"]
    return Round(
        events=[(message.seq, event) for message, event in ours],
        stored_ms=(stored.timestamp_ns - quorum_ns) / 1e6,
        refused_ms=[(min(child["known_ns"].values()) - quorum_ns) / 1e6 for child in children],
        known_ms=[(child["known_ns"][str(opened.rev)] - quorum_ns) / 1e6 for child in children],
        raw_ms=[(child["raw_ns"][opened.id] - quorum_ns) / 1e6 for child in children],
    )


def percentile(values: list[float], fraction: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]
