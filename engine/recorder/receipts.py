"""Receipts: what is certain about a recorded event, and waiting until more is."""

import asyncio
import heapq
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from enum import StrEnum
from typing import Protocol, TypeVar, cast

from relight.engine.errors import AckTimeout, RecorderError

T = TypeVar("T")

log = logging.getLogger(__name__)


class Ack(StrEnum):
    """How far an event has come."""

    SPOOLED = "spooled"
    """fsynced on this machine"""
    REPLICATED = "replicated"
    """acknowledged by a stream that proved it fsyncs"""
    PROJECTED = "projected"
    """visible in the tables"""


class Acknowledger(Protocol):
    """Who can tell how far an event has come."""

    ack_timeout_s: float
    publisher: str

    def reach(self, receipt: "Receipt", ack: Ack) -> "Future[None]": ...


_settling = threading.Lock()


def _unlock() -> None:
    """In a fork()ed child: another thread of the parent may have held it, and that thread is not here."""
    global _settling
    _settling = threading.Lock()


os.register_at_fork(after_in_child=_unlock)


class Receipt:
    """Of one event: its id, and from SPOOLED on its number; `refused` says why it has none."""

    __slots__ = ("_acknowledger", "_waiting", "id", "pseq", "refused")

    def __init__(self, acknowledger: Acknowledger | None, event_id: str) -> None:
        self._acknowledger = acknowledger
        self._waiting: list[Callable[[], None]] = []
        self.id = event_id
        self.pseq: int | None = None
        self.refused: str | None = None

    @property
    def token(self) -> str:
        """`<pseq>@<publisher>`, by which anybody can wait for the event (`numbered`); from SPOOLED on.

        Raises `RecorderError` before the event is numbered.
        """
        if self.pseq is None or self._acknowledger is None:
            raise RecorderError(f"event {self.id} has no number yet: wait until it is spooled")
        return f"{self.pseq}@{self._acknowledger.publisher}"

    def settle(self, *, pseq: int | None = None, refused: str | None = None) -> None:
        """The writer's word: the event has this number, or is refused."""
        with _settling:
            self.pseq, self.refused = pseq, refused
            waiting, self._waiting = self._waiting, []
        for callback in waiting:
            try:
                callback()
            except Exception as error:  # whoever waits must not keep the others from being told
                log.error("a receipt's waiter failed: %r", error, extra={"action": "waiter_failed"})

    def moved_to(self, acknowledger: Acknowledger) -> None:
        """Before it is settled: another session records the event."""
        if self._acknowledger is not None:
            self._acknowledger = acknowledger

    @property
    def acknowledger(self) -> Acknowledger | None:
        return self._acknowledger

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Calls back, in whatever thread, once the event is numbered or refused."""
        with _settling:
            if self.pseq is None and self.refused is None:
                self._waiting.append(callback)
                return
        callback()

    async def reached(self, ack: Ack, *, timeout_s: float | None = None) -> None:
        """Waits until `ack` is certain.

        Raises `AckTimeout` (it may still come), `AckNotProven` (it cannot be promised here, and why), `RecordRefused`
        (a cap was reached: the event is counted but lost), `DeadLettered` (the projector refused it).
        """
        future, timeout_s = self._wait_for(ack, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wrap_future(future)
        except TimeoutError:
            raise self._late(ack, timeout_s) from None

    def wait(self, ack: Ack, *, timeout_s: float | None = None) -> None:
        """`reached` for code without an event loop."""
        future, timeout_s = self._wait_for(ack, timeout_s)
        try:
            future.result(timeout_s)
        except FutureTimeoutError:
            future.cancel()
            raise self._late(ack, timeout_s) from None

    def _wait_for(self, ack: Ack, timeout_s: float | None) -> "tuple[Future[None], float]":
        if self._acknowledger is None:
            raise RecorderError(f"event {self.id} has nobody who could tell how far it came")
        return self._acknowledger.reach(self, ack), self._acknowledger.ack_timeout_s if timeout_s is None else timeout_s

    def _late(self, ack: Ack, timeout_s: float) -> AckTimeout:
        return AckTimeout(
            f"event {self.id} was not {ack} within {timeout_s:g} s; it stays recorded: look at `relight status`,"
            " and wait again"
        )


def numbered(token: str) -> tuple[str, int]:
    """Publisher and number of a `Receipt.token`. Raises `ValueError`."""
    pseq, at, publisher = token.partition("@")
    if not (at and publisher and publisher.isprintable() and pseq.isascii() and pseq.isdecimal()) or len(pseq) > 16:
        raise ValueError("no receipt: it looks like 42@p-0123456789abcdef")
    return publisher, int(pseq)


class Watermark:
    """A number that only grows, and those who wait for it; used from any thread."""

    def __init__(self, value: int = 0) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, int, Future[None]]] = []
        self._order = 0
        self.value = value

    def when(self, value: int, future: "Future[None]") -> None:
        """Completes the future once the watermark has come so far."""
        with self._lock:
            if value > self.value:
                self._order += 1
                heapq.heappush(self._waiting, (value, self._order, future))
                return
        complete(future)

    def advance(self, value: int) -> None:
        due = []
        with self._lock:
            self.value = max(self.value, value)
            while self._waiting and self._waiting[0][0] <= self.value:
                due.append(heapq.heappop(self._waiting)[2])
        for future in due:
            complete(future)


def complete(future: "Future[T]", error: Exception | None = None, *, result: "T | None" = None) -> None:
    """Sets the result unless the waiter has gone, or was told already."""
    with suppress(InvalidStateError):
        if future.done() or not future.set_running_or_notify_cancel():
            return
        if error is None:
            future.set_result(cast(T, result))
        else:
            future.set_exception(error)
