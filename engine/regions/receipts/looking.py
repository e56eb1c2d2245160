"""Looks whether what one receipt leaves open has come, and closes it; only one who does so comes first."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from relight.engine import scope
from relight.engine.errors import Superseded
from relight.engine.log.content import fetch_content
from relight.engine.log.control import ControlLog
from relight.engine.log.numbers import Numbers
from relight.engine.log.topology import REQUEST_TIMEOUT_S
from relight.engine.recorder.answering_spools import ASKED, MAX_PUBLISHERS, Lies, SpoolsAsked, SpoolsHeld, both
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.receipts.announced import Announced, Announcement
from relight.engine.regions.receipts.followed import Completed
from relight.engine.regions.receipts.making import content_of, stored
from relight.engine.regions.receipts.models import Closing, PublisherClosing, PublisherReceipt, Receipt
from relight.engine.regions.receipts.reading import Standing, read_region
from relight.engine.regions.receipts.settling import Signs, declared_gone, settled
from relight.events.envelope import PLATFORM
from relight.events.failover import FailoverReceiptClosed, ReceiptClosing

POLICY = "receipt-1"
ANSWERS_S = 0.5
HEARD_MS = 15_000
"""Who was heard within this time is alive."""
SILENT_MS = 30_000
"""Who was not heard for so long, though its region is back, does not come back."""


class Looking:
    """At one receipt; what was read of the stream is kept from one look to the next.

    `announced` is what this process heard; None: nothing. `is_back` says whether a region is there again.
    """

    def __init__(
        self,
        recorder: Recorder,
        completed: Completed,
        receipt: Receipt,
        *,
        announced: Announced | None = None,
        is_back: Callable[[str], bool] = lambda region: False,
        silent_ms: int = SILENT_MS,
    ) -> None:
        self.completed = completed
        self.receipt = receipt
        self._recorder = recorder
        self._announced = announced
        self._is_back = is_back
        self._silent_ms = silent_ms
        self._standing = Standing(through_seq=receipt.through_seq)
        self._since = recorder.clock.now_us()
        self.left: tuple[str, ...] = ()
        """Publishers of which something may still come, as of the last look."""

    async def look(self) -> bool:
        """Closes it where nothing is left to come; whether it is closed now. Raises what the log raises."""
        parts, signs = self.receipt.open, await self._signs()
        found = {part.publisher: settled(part, signs[part.publisher]) for part in parts}
        self.left = tuple(publisher for publisher, closing in found.items() if closing is None)
        if self.left:
            return False
        await self._close(
            [closing for closing in found.values() if closing is not None],
            ReceiptClosing.RETURNED,
            reason="all that was absent or in doubt has come, or is known to be lost" if parts else "nothing was left",
        )
        return True

    async def give_up(self, *, declared_by: str, reason: str) -> Closing | None:
        """Closes it as it is; None where it was closed meanwhile. Raises what the log raises."""
        signs = await self._signs()
        closings = [declared_gone(part, signs[part.publisher]) for part in self.receipt.open]
        return await self._close(closings, ReceiptClosing.GONE, reason=reason, declared_by=declared_by)

    async def _signs(self) -> Mapping[str, Signs]:
        """All else is asked for before the stream is read: so what was said to be there is seen there."""
        client, parts = await self._recorder.client(), self.receipt.open
        fresh = {part.publisher: self._fresh(part) for part in parts}
        lies, read = await _ask(client, parts) if parts else ({}, set())
        if parts:
            await read_region(client, self.receipt.source_region, self._standing)
        is_back = self._is_back(self.receipt.source_region)
        return {
            part.publisher: Signs(
                stood=self._standing.of(part.publisher),
                lost=self._standing.lost.get(part.publisher) or Numbers(),
                fresh=fresh[part.publisher],
                lies=lies.get(part.publisher),
                place_is_empty=part.place in read and part.publisher not in lies,
                is_silent=self._is_silent(part.publisher),
                is_back=is_back,
            )
            for part in parts
        }

    def _fresh(self, part: PublisherReceipt) -> Announcement | None:
        """What it said since the receipt was made, if it lives, or left with a word."""
        known = None if self._announced is None else self._announced.last(part.publisher)
        if known is None or (known.generation, known.seq) == (part.generation, part.announcement):
            return None
        silent_ms = self._announced.silent_ms(part.publisher) if self._announced is not None else None
        if known.sent_at_us <= self.receipt.made_at.timestamp() * 1e6:
            return None
        return known.said if known.leaving or (silent_ms or 0) < HEARD_MS else None

    def _is_silent(self, publisher: str) -> bool:
        """As far as this process has listened itself."""
        if self._announced is None:
            return False
        silent_ms = self._announced.silent_ms(publisher)
        if silent_ms is not None:
            return silent_ms >= self._silent_ms
        return (self._recorder.clock.now_us() - self._since) // 1_000 >= self._silent_ms

    async def _close(
        self, closings: list[PublisherClosing], how: ReceiptClosing, *, reason: str, declared_by: str | None = None
    ) -> Closing | None:
        clock = self._recorder.clock
        closing = Closing(
            failover=self.receipt.failover,
            receipt=self.completed.receipt,
            source_region=self.receipt.source_region,
            closed_at=clock.now(),
            through_seq=self._standing.through_seq,
            how=how.value,
            declared_by=declared_by,
            reason=reason,
            publishers=tuple(closings),
        )
        body = closing.to_bytes()
        await stored(await self._recorder.client(), body, clock.now_us() // 1_000)
        event = FailoverReceiptClosed(
            failover=closing.failover,
            fleet=self.receipt.fleet,
            source_region=self.receipt.source_region,
            target_region=self.receipt.target_region,
            how=how,
            recovered_events=closing.recovered_events,
            lost_events=closing.lost_events,
            in_doubt_events=closing.in_doubt_events,
            is_open_ended=any(one.open_from is not None for one in closings),
            reason=reason,
            ordered_by=declared_by,
            receipt=content_of(body),
        )
        came_first = await self._recorder.with_control(partial(_append_first, event))
        return closing if came_first else None


async def opened(recorder: Recorder, completed: Completed) -> Receipt:
    """The receipt of a failover. Raises `ContentError`, and what the log raises."""
    return Receipt.of(await recorder.with_jetstream(lambda js: fetch_content(js, PLATFORM, completed.receipt)))


async def closing_of(recorder: Recorder, completed: Completed) -> Closing | None:
    """The final one, where it is closed. Raises the same."""
    if completed.closed is None:
        return None
    final = completed.closed.receipt
    return Closing.of(await recorder.with_jetstream(lambda js: fetch_content(js, PLATFORM, final)))


async def _append_first(event: FailoverReceiptClosed, control: ControlLog) -> bool:
    """Only as the first on its subject: whoever else closes it comes too late."""
    tail = await control.tail(FailoverReceiptClosed, tenant=PLATFORM, entity=event.failover)
    if tail.event is not None:
        return False
    try:
        with scope.entered(tenant=PLATFORM, causation=None, correlation=event.failover):
            await control.append(event, after=tail, tenant=PLATFORM, policy_version=POLICY)
    except Superseded:
        return False
    return True


async def _ask(client: Client, parts: tuple[PublisherReceipt, ...]) -> tuple[dict[str, Lies], set[str]]:
    """What lies of these publishers, wherever; and the places that answer and have nothing that could not be read.

    A place is a folder on a machine; of each, one process answers.
    """
    inbox, answers = client.new_inbox(), list[SpoolsHeld]()

    async def take(message: Msg) -> None:
        try:
            answers.append(SpoolsHeld.model_validate_json(message.data))
        except ValidationError:
            return

    asked = SpoolsAsked(publishers=tuple(part.publisher for part in parts)[:MAX_PUBLISHERS])
    subscription = await client.subscribe(inbox, cb=take)
    try:
        await client.publish(ASKED, asked.model_dump_json().encode(), reply=inbox)
        await client.flush(timeout=REQUEST_TIMEOUT_S)  # type: ignore[arg-type]  # it waits so long: fractions will do
        await asyncio.sleep(ANSWERS_S)
    finally:
        await subscription.unsubscribe()
    lies: dict[str, Lies] = {}
    for answer in answers:
        for publisher, found in answer.spools.items():
            lies[publisher] = found if publisher not in lies else both(lies[publisher], found)
    return lies, {answer.place for answer in answers if not answer.unread}
