"""Heartbeats made by hand, and a receiver on a scripted clock."""

from collections.abc import Callable
from typing import Any

from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import SERVICE, Heartbeat

S = 1_000_000


class Scripted:
    """A receiver in eu that runs nowhere: it is handed what it hears, on a clock that stands until it is moved."""

    def __init__(self, recorder: Recorder) -> None:
        self.us = 0
        self.heard = Heard(recorder, clock_us=lambda: self.us)
        self.heard.take(beat("eu", region="eu"))
        clock = self.heard._clock
        assert clock is not None
        self.clock = clock
        self.clock.listen(0, True)

    def pass_s(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        for _ in range(round(seconds * 10)):
            self.us += S // 10
            self.clock.look(self.us)
            each()

    def beats(self, count: int, *, id: str = "us", generation: int = 1, first: int = 1) -> None:
        for seq in range(first, first + count):
            self.heard.take(beat(id, generation=generation, seq=seq))
            self.pass_s(0.5)


def beat(
    id: str, *, region: str = "us", kind: str = SERVICE, generation: int = 1, seq: int = 1, **more: Any
) -> Heartbeat:
    said = {"id": id, "region": region, "kind": kind, "generation": generation, "seq": seq, "sent_at_us": 0, **more}
    return Heartbeat.model_validate(said)
