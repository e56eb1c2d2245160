"""What a drill does: how many, how long, how fast, and from which seed."""

from collections.abc import Sequence
from dataclasses import dataclass

PHASES = ("load", "rolling", "outage")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Times in seconds. With one seed the clients ask the same questions in the same order; only the clock differs.

    A client thinks (exponentially distributed, `think_s` on average), asks over HTTP, and after every
    1 / `beside` questions on average puts the same one through the bare pool too, before or after, by lot.
    """

    phases: Sequence[str] = PHASES
    seed: int = 1
    clients: int = 500
    seconds: float = 60
    think_s: float = 1
    beside: float = 0.2
    events_per_s: int = 1_000
    tenants: int = 8
    prefill_events: int = 20_000
    closed_clients: int = 64
    closed_seconds: float = 10
    away_s: float = 30
    restarts: int = 3
    pool_size: int = 10
    apis: int = 2
    projectors: int = 2
    logs: str | None = None
    """A folder for what the processes said; None: it goes with the rest."""

    @property
    def warm_up_s(self) -> float:
        """Left out of the times, while connections are made; failures count from the first moment."""
        return min(5, self.seconds / 5)

    def tenant(self, number: int) -> str:
        return f"tenant-{number % self.tenants}"


ROWS = 20
"""The limit that every question names, as a dashboard would."""
HEALTH_SAYS_WITHIN_S = 2.0
SWAP_WITHIN_S = 1.0
SEED_API_MS = (50.0, 80.0)
"""The pooled access that the project was asked for: 50-80 ms at the API with 500 users."""
