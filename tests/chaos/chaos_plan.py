"""What a chaos run does: how many kills, how long outages, and from which seed."""

from collections.abc import Sequence
from dataclasses import dataclass

PHASES = ("kills", "away", "wires", "disk")


@dataclass(frozen=True, kw_only=True)
class ChaosPlan:
    """Times in seconds. With one seed the same victims are drawn in the same order; only the clock differs."""

    phases: Sequence[str] = PHASES
    seed: int = 1
    rounds: int = 1_000
    scene_rounds: int = 100
    """Kills before a fresh scene."""
    check_rounds: int = 50
    """Kills between two checks of everything."""
    moment_s: float = 0.9
    """At most between a kill and the next, beside what those that were hit take to go on."""
    away_s: float = 300
    events_per_s: int = 200
    wires_s: float = 20
    """How long each fault of the network lasts."""
    logs: str | None = None
    """A folder for what the processes said; None: it goes with the rest."""
