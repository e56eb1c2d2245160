"""Asks every recorder that can be reached for what is missing, and waits for those that have some of it."""

import asyncio
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from pydantic import ValidationError

from relight.engine.log.numbers import Missing
from relight.engine.recorder.heal_messages import HERE, MISSING, Lost, Report, Request

MAX_REQUEST_BYTES = 256 << 10
"""A quarter of NATS' default max_payload."""
RUN_BYTES = 50
QUIET_S = 0.5
"""So long nobody says anything before the asking ends; who is at work is waited for."""
MOST_S = 60.0
LOOK_EVERY_S = 0.02


class Asking:
    """`here` is set whenever a recorder comes up."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._subscriptions: list[Subscription] = []
        self._at_work: set[str] = set()
        self._heard_at = 0.0
        self.here = asyncio.Event()

    async def __aenter__(self) -> Self:
        async def somebody_is_here(_: Msg) -> None:
            self.here.set()

        self._subscriptions = [
            await self._client.subscribe(self._inbox, cb=self._hear),
            await self._client.subscribe(HERE, cb=somebody_is_here),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for subscription in self._subscriptions:
            if self._client.is_connected:
                await subscription.unsubscribe()

    async def ask(self, missing: Missing, *, patient: bool) -> None:
        """Returns once everybody who is at work is done, or nobody says anything. That proves nothing."""
        loop = asyncio.get_running_loop()
        self._at_work.clear()
        for request in _requests(missing, patient=patient):
            await self._client.publish(MISSING, request.model_dump_json().encode(), reply=self._inbox)
        self._heard_at = began = loop.time()

        def waits() -> bool:
            now = loop.time()
            return now - began < MOST_S and (bool(self._at_work) or now - self._heard_at < QUIET_S)

        while waits():  # noqa: ASYNC110  # for silence: no event tells of it
            await asyncio.sleep(LOOK_EVERY_S)

    async def _hear(self, message: Msg) -> None:
        try:
            report = Report.model_validate_json(message.data)
        except ValidationError:
            return
        self._heard_at = asyncio.get_running_loop().time()
        (self._at_work.discard if report.done else self._at_work.add)(report.recorder)


def _requests(missing: Missing, *, patient: bool) -> Iterator[Request]:
    """Each stays well below what a message may hold."""
    asked, size = list[Lost](), 0
    for publisher, numbers in missing.items():
        runs = tuple(numbers)
        at_once = (MAX_REQUEST_BYTES // 2) // RUN_BYTES
        # The highest first: of a control subject those below are put back under it.
        for last in range(len(runs), 0, -at_once):
            part = Lost(publisher=publisher, runs=runs[max(0, last - at_once) : last])
            part_size = len(publisher.encode()) + RUN_BYTES * len(part.runs)
            if asked and size + part_size > MAX_REQUEST_BYTES:
                yield Request(missing=tuple(asked), patient=patient)
                asked, size = [], 0
            asked.append(part)
            size += part_size
    if asked:
        yield Request(missing=tuple(asked), patient=patient)
