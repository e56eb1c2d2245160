"""Ends attempts at their deadline: one timer for all calls of a loop, for `asyncio.timeout` costs 3 us a call."""

import asyncio
from heapq import heapify, heappop, heappush
from itertools import count

_COMPACTED_ABOVE = 256


class Alarm:
    """What happens at a moment, unless it is `over` before."""

    __slots__ = ("at_s", "cancelling", "fired", "over", "target")

    def __init__(self, at_s: float, target: object) -> None:
        self.at_s = at_s
        self.target = target
        self.over = False
        self.fired = False
        self.cancelling = 0

    def caught(self) -> bool:
        """Whether the cancellation of a task is this alarm's, and nobody else asked for one."""
        return self.fired and isinstance(self.target, asyncio.Task) and self.target.uncancel() <= self.cancelling


class Agenda:
    """Alarms by their moment. One that is over stays until its moment, or until most of them are over."""

    __slots__ = ("_heap", "_numbers", "_sets")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = count()
        self._sets = 0

    def add(self, alarm: Alarm) -> bool:
        """Whether it is the first one now."""
        heap = self._heap
        self._sets += 1
        if self._sets > _COMPACTED_ABOVE and self._sets > len(heap) // 2:
            self._sets = 0
            heap[:] = [entry for entry in heap if not entry[2].over]
            heapify(heap)
        heappush(heap, (alarm.at_s, next(self._numbers), alarm))
        return heap[0][2] is alarm

    def next_s(self) -> float | None:
        """When the next one is due that is not over."""
        heap = self._heap
        while heap and heap[0][2].over:
            heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now_s: float) -> list[Alarm]:
        found = []
        while (at_s := self.next_s()) is not None and at_s <= now_s:
            found.append(heappop(self._heap)[2])
        return found


class LoopAlarms:
    """Cancels tasks of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._agenda = Agenda()
        self._timer: asyncio.TimerHandle | None = None

    def set(self, left_s: float) -> Alarm:
        """For the current task."""
        alarm = Alarm(self._loop.time() + left_s, asyncio.current_task())
        if self._agenda.add(alarm) and (self._timer is None or alarm.at_s < self._timer.when()):
            self._arm(alarm.at_s)
        return alarm

    def _arm(self, at_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at_s is None else self._loop.call_at(at_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        for alarm in self._agenda.due(self._loop.time()):
            assert isinstance(alarm.target, asyncio.Task)
            alarm.fired, alarm.cancelling = True, alarm.target.cancelling()
            alarm.target.cancel()
        self._arm(self._agenda.next_s())
