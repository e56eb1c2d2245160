"""The body of a synchronous response whose reads end at the caller's deadline."""

import time
from collections.abc import Iterator

import httpx2

from relight.engine.errors import DeadlineExceeded
from relight.engine.guard.alarms import Alarm
from relight.engine.guard.cutting import ThreadAlarms


def bound(response: httpx2.Response, alarms: ThreadAlarms, left_s: float) -> None:
    """Reading `response`, which is unread, raises `DeadlineExceeded` after `left_s`."""
    if isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _Bounded(response.stream, alarms, time.monotonic() + left_s)


class _Bounded(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, alarms: ThreadAlarms, until_s: float) -> None:
        self._stream = stream
        self._alarms = alarms
        self._until_s = until_s

    def __iter__(self) -> Iterator[bytes]:
        chunks = iter(self._stream)
        while True:
            alarm = Alarm()
            # Set anew for each read: between two of them the thread does what it likes, and is left alone.
            self._alarms.set(alarm, self._until_s - time.monotonic())
            try:
                chunk = next(chunks, None)
            except Exception as error:
                if alarm.fired:
                    raise self._late() from error
                raise
            finally:
                self._alarms.clear(alarm)
            if alarm.fired:
                raise self._late()
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)  # the SDK and httpx2 keep notes on it

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            "the deadline came while an answer was streaming in: allow more time, or ask for fewer tokens"
        )
