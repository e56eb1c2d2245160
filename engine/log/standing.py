"""Which events stand on the stream already: asked where the stream may have forgotten their message ids."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from relight.engine.log.topology import DUPLICATE_WINDOW_S, MESSAGE_ID, REQUEST_TIMEOUT_S, STREAM
from relight.engine.spool.spool import Spooled

FORGETS_S = DUPLICATE_WINDOW_S / 2
"""A message id is relied on for so long after it may have been stored."""
EARLIER = timedelta(seconds=60)
"""By how much the stream's clock may be behind that of the event's host."""
MOST_READ = 100_000
"""Messages of others on the event's subject that are looked through; beyond it the event is published again."""


async def standing(js: JetStreamContext, events: Sequence[Spooled]) -> list[int]:
    """The sequence of each of `events` that stands there, from the first on; empty when the first does not.

    They were sent in this order, so that none stands there without those before it.
    """
    found: list[int] = []
    if not events or (first := await _find(js, events[0])) is None:
        return found
    found.append(first)
    for event in events[1:]:
        if not await stands(js, found[-1] + 1, event):
            break
        found.append(found[-1] + 1)
    return found


async def stands(js: JetStreamContext, seq: int, event: Spooled) -> bool:
    """Whether it is this event that stands at `seq`."""
    try:
        found = await js.get_msg(STREAM, seq)
    except NotFoundError:
        return False
    return found.subject == event.subject and found.data == event.body


async def _find(js: JetStreamContext, event: Spooled) -> int | None:
    since = datetime.fromtimestamp(event.recorded_ms / 1_000, UTC) - EARLIER
    config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=since, headers_only=True)
    reading = await js.subscribe(event.subject, stream=STREAM, ordered_consumer=True, config=config)
    try:
        info = await reading.consumer_info()
        delivered = info.delivered.consumer_seq if info.delivered else 0  # some may have arrived before it was asked
        for _ in range(min(MOST_READ, delivered + (info.num_pending or 0))):
            message = await reading.next_msg(timeout=REQUEST_TIMEOUT_S)
            id = (message.headers or {}).get(MESSAGE_ID, "")
            seq = message.metadata.sequence.stream
            if id.partition("#")[0] == event.id and await stands(js, seq, event):
                return seq
    finally:
        with suppress(NatsError):
            await reading.unsubscribe()
    return None
