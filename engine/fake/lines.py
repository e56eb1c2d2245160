"""What `relight fake-anthropic` tells: each request when it is over, and all of them at the end."""

from collections import Counter
from dataclasses import dataclass

from relight.engine.fake.seen import Seen


@dataclass(frozen=True, slots=True)
class Line:
    """One request."""

    number: int
    method: str
    path: str
    model: str
    streams: bool
    served: str
    """`200`, another status, or a fault."""
    hung_up: bool
    took_ms: int
    request_id: str

    @classmethod
    def of(cls, seen: Seen) -> "Line":
        took_s = (seen.ended_s or seen.arrived_s) - seen.arrived_s
        return cls(
            number=seen.number,
            method=seen.method,
            path=seen.path.partition("?")[0],  # what stands behind may be a key
            model=seen.asked.model,
            streams=seen.asked.streams,
            served=seen.misbehaved or str(seen.step.status),
            hung_up=seen.hung_up,
            took_ms=round(took_s * 1_000),
            request_id=seen.request_id,
        )

    def __str__(self) -> str:
        what = f"{self.method} {self.path} {self.model}{' stream' if self.streams else ''}"
        gone = ", and the client hung up" if self.hung_up else ""
        return f"#{self.number} {what.rstrip()}: {self.served}{gone} ({self.took_ms} ms)"


class Tally:
    """Counts what was served."""

    def __init__(self) -> None:
        self.requests = 0
        self.hung_up = 0
        self.faults: Counter[str] = Counter()

    def add(self, seen: Seen) -> None:
        self.requests += 1
        self.hung_up += seen.hung_up
        if seen.misbehaved is not None:
            self.faults[seen.misbehaved] += 1

    def document(self) -> dict[str, object]:
        return {"requests": self.requests, "hung_up": self.hung_up, "faults": dict(sorted(self.faults.items()))}

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in self.faults.most_common())
        good = self.requests - self.faults.total()
        noun = "request" if self.requests == 1 else "requests"
        return f"{self.requests} {noun}: {good} answered well{f'; {kinds}' if kinds else ''}"
