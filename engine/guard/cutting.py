"""Ends attempts of threads at their deadline: the connection that a thread waits on is cut from another thread.

The timeouts of a synchronous client bound one read, never a request: a server that sends a byte a minute is waited for
as long as it likes. Shutting the socket down wakes whoever reads from it, at once and with an error of the usual kind.
"""

import socket
import sys
import threading
import time
from types import FrameType

from relight.engine.guard.alarms import Agenda, Alarm

AGAIN_S = 0.02
"""Between two looks at a thread that waits on no connection yet."""


class ThreadAlarms:
    """Cuts connections of this process's threads. Its own thread starts with the first alarm."""

    def __init__(self) -> None:
        self._agenda = Agenda()
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._next_s = float("inf")

    def set(self, left_s: float) -> Alarm:
        alarm = Alarm(time.monotonic() + left_s, threading.get_ident())
        with self._changed:
            self._agenda.add(alarm)
            if alarm.at_s < self._next_s or self._thread is None:
                self._wake()
        return alarm

    def clear(self, alarm: Alarm) -> None:
        """The thread that set it goes on: nothing of it is cut any more once this returns."""
        with self._changed:
            alarm.over = True

    def _wake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="relight deadlines", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while True:
                now_s = time.monotonic()
                for alarm in self._agenda.due(now_s):
                    alarm.fired = True
                    assert isinstance(alarm.target, int)
                    _cut(alarm.target)
                    # It may be between two connections, or just about to open one.
                    alarm.at_s = now_s + AGAIN_S
                    self._agenda.add(alarm)
                at_s = self._agenda.next_s()
                self._next_s = float("inf") if at_s is None else at_s
                self._changed.wait(None if at_s is None else max(at_s - time.monotonic(), 0))


def _cut(thread: int) -> None:
    """Shuts the socket that this thread uses now, if it does."""
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None:
        stream = frame.f_locals.get("self")
        if (extra := getattr(stream, "get_extra_info", None)) is not None:
            if isinstance(connection := extra("socket"), socket.socket):
                try:
                    # An SSLSocket's own shutdown would pull the TLS state from under the thread that reads.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
                except OSError:
                    return
            return
        frame = frame.f_back
