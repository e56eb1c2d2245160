"""Ends attempts at their deadline: one timer for all calls of a loop, for `asyncio.timeout` costs 3 us a call."""

import asyncio
import time
from heapq import heapify, heappop, heappush
from itertools import count

SWEPT = 16
"""So many that are over may stand in a heap."""
_NEVER = float("inf")


class Alarm:
    """Rings at a moment, unless it is taken back before; `at_s` is of the clock of whoever rings it.

    It is made without an __init__ of its own: whoever sets it, inserts it or rings it fills in what he is asked for.
    """

    __slots__ = ("at_s", "cancelling", "fired", "over", "target")
    at_s: float
    target: object
    fired: bool
    cancelling: int
    over: bool

    def raised(self, error: BaseException) -> Exception | None:
        """What an attempt until then raised; None where its caller was told meanwhile that it is to end."""
        if isinstance(error, Exception):
            return error
        return TimeoutError() if isinstance(error, asyncio.CancelledError) and self.caught() else None

    def caught(self) -> bool:
        """Whether the cancellation of a task is this alarm's, and nobody else asked for one."""
        return self.fired and isinstance(self.target, asyncio.Task) and self.target.uncancel() <= self.cancelling


class Agenda:
    """Alarms by their moment.

    Most have the same time left, so that they come in the order of their moments: a dict holds those, and forgets at
    once what is taken back. The rest stand in a heap, which is swept when most in it are over: each holds its call,
    with all that was asked and answered. Threads add to the dict and take from it without a lock.
    """

    __slots__ = ("_heap", "_numbers", "_over", "last_s", "ordered")

    def __init__(self) -> None:
        self.ordered: dict[Alarm, None] = {}
        self.last_s = 0.0
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = count()
        self._over = 0
        """Of those that were inserted, since the heap was swept."""

    def append(self, alarm: Alarm) -> bool:
        """False where it would come before one that is there: `insert` it."""
        if alarm.at_s < self.last_s:
            return False
        self.last_s = alarm.at_s
        self.ordered[alarm] = None
        return True

    def insert(self, alarm: Alarm) -> None:
        alarm.over = False
        heappush(self._heap, (alarm.at_s, next(self._numbers), alarm))

    def take_back(self, alarm: Alarm) -> bool:
        """False where it was inserted, or has rung."""
        return self.ordered.pop(alarm, alarm) is None

    def over(self, alarm: Alarm) -> None:
        """One that was inserted is not to ring any more."""
        alarm.over = True
        self._over += 1
        if self._over > SWEPT and self._over > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapify(self._heap)
            self._over = 0

    def next_s(self) -> float:
        """When the next one rings; infinity where there is none."""
        heap = self._heap
        while heap and heap[0][2].over:
            heappop(heap)
        first = self._first()
        ordered_s = _NEVER if first is None else first.at_s
        return min(ordered_s, heap[0][0]) if heap else ordered_s

    def due(self, now_s: float) -> list[Alarm]:
        """Takes out those whose moment has come."""
        found = []
        while (first := self._first()) is not None and first.at_s <= now_s:
            if self.take_back(first):
                found.append(first)
        heap = self._heap
        while heap and (heap[0][2].over or heap[0][0] <= now_s):
            alarm = heappop(heap)[2]
            if not alarm.over:
                found.append(alarm)
        return found

    def _first(self) -> Alarm | None:
        while True:
            try:
                return next(iter(self.ordered), None)
            except RuntimeError:  # another thread changed it just then
                continue


class LoopAlarms:
    """Cancels tasks of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.runs_in = loop if hasattr(loop, "_thread_id") else _UNSEEN
        """What says in which thread the loop runs now: to ask asyncio for the loop that runs takes five times as long.

        It asks for the process's id each time, in 3.11. Of other loops nothing can be seen: they have to be asked for.
        """
        self._loop = loop
        # The loop's own `time` is this one, with a frame around it.
        self._now_s = time.monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time
        self._agenda = Agenda()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_s = _NEVER

    def set(self, alarm: Alarm, left_s: float) -> None:
        """For the current task."""
        alarm.fired = False
        alarm.target = asyncio.current_task(self._loop)
        alarm.at_s = at_s = self._now_s() + left_s
        agenda = self._agenda
        if at_s >= agenda.last_s:  # as `append`, without a frame
            agenda.last_s = at_s
            agenda.ordered[alarm] = None
        else:
            agenda.insert(alarm)
        if at_s < self._rings_s:
            self._arm(at_s)

    def clear(self, alarm: Alarm) -> None:
        if self._agenda.ordered.pop(alarm, alarm) is not None:
            self._agenda.over(alarm)
        alarm.at_s = 0.0  # a number that is kept is memory that is cold when it is taken again
        alarm.target = None  # the task holds its result, and the alarm may be held for longer than it

    def _arm(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_s = at_s
        self._timer = None if at_s == _NEVER else self._loop.call_at(at_s, self._ring)

    def _ring(self) -> None:
        for alarm in self._agenda.due(self._now_s()):
            assert isinstance(alarm.target, asyncio.Task)
            alarm.fired, alarm.cancelling = True, alarm.target.cancelling()
            alarm.target.cancel()
        # Not before: most alarms are taken back long before they ring, and a timer costs more than they do.
        self._arm(self._agenda.next_s())


class _Unseen:
    """Stands for a loop of which it cannot be seen where it runs."""

    _thread_id: int | None = None


_UNSEEN = _Unseen()
