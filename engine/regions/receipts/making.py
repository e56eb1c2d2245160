"""Makes the receipt of a failover: what publishers of the lost region had announced, held against the stream."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

from nats.aio.client import Client

from relight.engine.log.content_store import ContentStore
from relight.engine.log.links import link_of
from relight.engine.log.numbers import Numbers
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.receipts.announced import Announced, Known
from relight.engine.regions.receipts.models import PublisherReceipt, Receipt, Runs
from relight.engine.regions.receipts.reading import Standing, Stood, id_of, named, read_at, read_region
from relight.engine.spool.rows import SpooledContent
from relight.events.envelope import PLATFORM
from relight.events.failover import StandIn
from relight.events.values import Content

SKEW_S = 60.0
"""Clocks are not further apart: events that are further ahead are dead letters."""
WINDOW_S = 600.0
"""So long before a failover the stream is read: of who was silent before, what is missing is in doubt."""
READ_S = 12.0
LOOKED_UP_AT_ONCE = 64
MAX_IDS = 500
"""Of each list."""


class ReceiptMaker:
    """Of one fleet; in the recorder's loop."""

    def __init__(self, recorder: Recorder, fleet: str, announced: Announced) -> None:
        self._recorder = recorder
        self._fleet = fleet
        self._announced = announced

    async def __call__(self, one: StandIn) -> Content:
        """Makes and stores it. Raises a `nats.errors.Error`, `TimeoutError` or `RelightError`."""
        receipt = await self.made(one)
        client = await self._recorder.client()
        return await stored(client, receipt.to_bytes(), self._recorder.clock.now_us() // 1_000)

    async def made(self, one: StandIn) -> Receipt:
        """Reads the stream, from some time before the failover began; raises the same."""
        client, now_us = await self._recorder.client(), self._recorder.clock.now_us()
        known = self._announced.of(one.source_region, now_us)
        skew, earliest = timedelta(seconds=SKEW_S), one.begun_at - timedelta(seconds=WINDOW_S)
        heard = [_time(each.sent_at_us) for each in known if not each.is_over]
        since = max(earliest, min([one.begun_at, *heard]) - skew)
        standing = Standing()
        await read_region(client, one.source_region, standing, since=since, within_s=READ_S)
        await _look_up_heads(client, [each for each in known if each.publisher not in standing.publishers], standing)
        spoken = {each.publisher: each for each in known}
        publishers = [
            publisher_receipt(
                name,
                spoken.get(name),
                standing.of(name),
                was_read=standing.complete and (name not in spoken or _time(spoken[name].sent_at_us) - skew >= since),
            )
            for name in sorted(spoken.keys() | standing.publishers.keys())
        ]
        return Receipt(
            failover=one.failover,
            fleet=self._fleet,
            source_region=one.source_region,
            target_region=one.target_region,
            made_at=_time(now_us),
            through_seq=standing.through_seq,
            complete=standing.complete,
            forgotten=self._announced.forgotten,
            publishers=tuple(publishers),
        )


async def stored(client: Client, body: bytes, now_ms: int) -> Content:
    """Puts it into the content store, whatever the stream does; returns its digest."""
    spooled = SpooledContent(PLATFORM, content_of(body).sha256, body, now_ms)
    await ContentStore(client).put([spooled])
    return content_of(body)


def publisher_receipt(publisher: str, known: Known | None, stood: Stood, *, was_read: bool) -> PublisherReceipt:
    """`was_read`: the stream was read from before the announcement to its end, so that what was not found is absent."""
    pseq, id, sha256 = stood.last
    if known is None:
        return PublisherReceipt(
            publisher=publisher,
            confirmed=_runs(stood.numbers),
            last_id=id or None,
            last_sha256=sha256 or None,
            confirmed_ids=tuple(named(stood, stood.numbers, MAX_IDS)),
            open_from=None if stood.ended_at == pseq else pseq + 1,
        )
    said = known.said
    acknowledged = Numbers([(1, said.acked)] if said.acked else [])
    confirmed = acknowledged.union(stood.numbers)
    announced = Numbers([(said.acked + 1, said.spooled)] if said.spooled > said.acked else [])
    missing = announced.minus(stood.numbers)
    known_ids = list(enumerate(said.ids, said.acked + 1))
    missing_ids = tuple(one for one in known_ids if one[0] in missing)
    is_absent = said.durable and was_read
    on_stream = set(stood.ids.values())
    highest = max(said.spooled, confirmed.highest)
    ended = stood.ended_at == highest > 0 or known.is_over
    return PublisherReceipt(
        publisher=publisher,
        place=said.place,
        durable=said.durable,
        announced_at=_time(known.sent_at_us),
        generation=known.generation,
        announcement=known.seq,
        confirmed=_runs(confirmed),
        last_id=id or None,
        last_sha256=sha256 or None,
        confirmed_ids=tuple(named(stood, stood.numbers.minus(acknowledged), MAX_IDS)),
        absent=_runs(missing) if is_absent else (),
        absent_ids=missing_ids if is_absent else (),
        in_doubt=() if is_absent else _runs(missing),
        in_doubt_ids=() if is_absent else missing_ids,
        waiting_ids=() if ended else tuple(one for one in said.waiting_ids if one not in on_stream),
        waiting=0 if ended else said.waiting,
        open_from=None if ended else highest + 1,
    )


async def _look_up_heads(client: Client, known: list[Known], standing: Standing) -> None:
    """Of those that were quiet lately: the event that the stream acknowledged last, where it still stands."""
    asked = [each for each in known if each.said.acked_seq]

    async def look_up(each: Known) -> None:
        message = await read_at(client, each.said.acked_seq)
        link = None if message is None else link_of(message)
        if (
            message is not None
            and link is not None
            and (link.publisher, link.pseq) == (each.publisher, each.said.acked)
        ):
            standing.publishers[each.publisher].last = (link.pseq, id_of(message), link.sha256)

    for first in range(0, len(asked), LOOKED_UP_AT_ONCE):
        await asyncio.gather(*(look_up(each) for each in asked[first : first + LOOKED_UP_AT_ONCE]))


def content_of(body: bytes) -> Content:
    """What an event holds of it."""
    return Content(sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body))


def _runs(numbers: Numbers) -> Runs:
    return tuple(numbers)


def _time(unix_us: int) -> datetime:
    return datetime.fromtimestamp(unix_us / 1e6, UTC)
