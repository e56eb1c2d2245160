"""Ends attempts of threads at their deadline: the connection that a thread waits on is cut from another thread.

The timeouts of a synchronous client bound one read, never a request: a server that sends a byte a minute is waited for
as long as it likes. Shutting the socket down wakes whoever reads from it, at once and with an error of the usual kind.
"""

import logging
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from weakref import WeakSet

from relight.engine.guard.calls.alarms import Agenda, Alarm

log = logging.getLogger(__name__)

AGAIN_S = 0.02
"""Between two looks at a thread that waited on no connection when its time was over."""
_NEVER = float("inf")
_OURS = "relight.engine.guard."


class ThreadAlarms:
    """Cuts connections of this process's threads. Its own thread starts with the first alarm."""

    def __init__(self) -> None:
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._agenda = Agenda()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._rings_s = _NEVER

    def set(self, alarm: Alarm, left_s: float) -> None:
        """For the thread that this is."""
        alarm.fired = False
        alarm.target = threading.get_ident()
        alarm.at_s = at_s = time.monotonic() + left_s
        appended = self._agenda.append(alarm)
        if not appended or at_s < self._rings_s:
            self._add(alarm, appended)

    def clear(self, alarm: Alarm) -> None:
        """Once this returns, nothing of the thread is cut any more."""
        if not self._agenda.take_back(alarm):
            with self._lock:
                self._agenda.over(alarm)
        alarm.at_s, alarm.target = 0.0, None  # as in `LoopAlarms`

    def _add(self, alarm: Alarm, appended: bool) -> None:
        with self._lock:
            if not appended:
                self._agenda.insert(alarm)
            if alarm.at_s < self._rings_s:
                self._rings_s = alarm.at_s
                if self._thread is None:
                    self._start()
                self._changed.notify()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="relight deadlines", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter ends: calls go on, with their own timeouts
            log.error("deadlines of sync calls are not kept: %s", error, extra={"action": "no_deadlines"})
            return
        self._thread = thread

    def _run(self) -> None:
        with self._changed:
            while True:
                now_s = time.monotonic()
                if now_s < self._rings_s:
                    # Not for the next alarm, which is taken back long before it rings: for the first that was set.
                    self._changed.wait(None if self._rings_s == _NEVER else self._rings_s - now_s)
                    continue
                for alarm in self._agenda.due(now_s):
                    alarm.fired = True
                    assert isinstance(alarm.target, int)
                    _cut(alarm.target)
                    # It may be between two connections, or just about to open one.
                    alarm.at_s = now_s + AGAIN_S
                    self._agenda.insert(alarm)
                self._rings_s = self._agenda.next_s()


_all: "WeakSet[ThreadAlarms]" = WeakSet()


def _after_fork_in_child() -> None:
    """The thread is not here, and the lock may have been held."""
    for alarms in list(_all):
        alarms._begin()


os.register_at_fork(after_in_child=_after_fork_in_child)

THREAD_ALARMS = ThreadAlarms()
"""Of the process: one thread does for all guards."""


def _cut(thread: int) -> None:
    """Shuts down the socket that this thread waits on, if it does: of what the guard called, not of its callers."""
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None and not frame.f_globals.get("__name__", "").startswith(_OURS):
        stream = frame.f_locals.get("self")
        if (extra := getattr(stream, "get_extra_info", None)) is not None:
            connection = extra("socket")
            if isinstance(connection, socket.socket):
                # An SSLSocket's own shutdown would pull the TLS state from under the thread that reads.
                with suppress(OSError):  # it is closed already
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
            return
        frame = frame.f_back
