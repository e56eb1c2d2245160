"""Says how far a region follows the queues that another one leads: how many tasks' rulings it has, and how late."""

from relight.engine import scope
from relight.engine.recorder.recorder import Recorder
from relight.engine.tasks.leading import Leading
from relight.events.envelope import PLATFORM
from relight.events.queues import QueueReplicated

TELL_EVERY_S = 10.0


class Replicated:
    """Counts what a replica's dispatcher folds, and records it now and then: nothing where nothing came."""

    def __init__(self, recorder: Recorder, leading: Leading, *, every_s: float = TELL_EVERY_S) -> None:
        self._recorder = recorder
        self._region = recorder.options.region
        self._leading = leading
        self._every_s = every_s
        self._told_s = 0.0
        self._rulings: dict[tuple[str, str], tuple[int, int]] = {}
        """By queue and who led it: how many since it was told last, and how late the last one was, in milliseconds."""

    def saw(self, queue: str, timestamp_ms: int) -> None:
        """A ruling on a task of the queue, which the stream took then."""
        declared, leader = self._leading.declared_queue(queue), self._leading.leader(queue)
        if declared is None or self._region not in declared.replica_regions or leader == self._region:
            return
        count = self._rulings.get((queue, leader), (0, 0))[0]
        lag_ms = max(0, self._recorder.clock.now_us() // 1_000 - timestamp_ms)
        self._rulings[queue, leader] = (count + 1, lag_ms)

    def tell(self, now_s: float) -> None:
        """Records what came since the last time."""
        if now_s - self._told_s < self._every_s:
            return
        self._told_s = now_s
        told, self._rulings = self._rulings, {}
        with scope.entered(tenant=PLATFORM):
            for (queue, leader), (count, lag_ms) in told.items():
                event = QueueReplicated(
                    queue_name=queue,
                    from_region=leader,
                    to_region=self._region,
                    task_count=count,
                    lag_ms=lag_ms,
                )
                self._recorder.record(event)
