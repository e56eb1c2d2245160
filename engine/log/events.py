"""Looks at events on the stream: the latest, all of them, or one by its id."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from nats.aio.client import Client

from relight.engine.errors import Unreachable
from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import BEGINNING, TRANSIENT, Message, Reader
from relight.engine.log.topology import STREAM
from relight.events.base import Event
from relight.events.catalog import decode_message
from relight.events.envelope import Recorded
from relight.events.errors import Undecodable

READ_BATCH = 5_000


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A message, and the event in it where there is one; else `type` is the reason and `detail` says more."""

    message: Message
    event: Recorded[Event] | None
    type: str
    detail: str

    @property
    def sha256(self) -> str:
        return body_sha256(self.message.body)


def stored(message: Message) -> StoredEvent:
    """What a message holds."""
    try:
        event = decode_message(message.subject, message.body, message.timestamp_ms)
    except Undecodable as error:
        return StoredEvent(message, None, f"({error.reason})", error.detail)
    return StoredEvent(message, event, event.type, "")


async def read_all(client: Client) -> AsyncIterator[tuple[Sequence[StoredEvent], int]]:
    """Everything on the stream up to its end now, in batches, each with how many messages there are in all."""
    async for batch, total in read_messages(client):
        yield [stored(message) for message in batch], total


async def read_messages(client: Client) -> AsyncIterator[tuple[Sequence[Message], int]]:
    """The same, as it stands there."""
    async with Reader(client, BEGINNING) as reader:
        first, end = await _bounds(reader)
        async for batch in reader.through(end, limit=READ_BATCH):
            if batch:
                yield batch, end - first + 1


async def follow(client: Client, *, last: int, forever: bool) -> AsyncIterator[StoredEvent]:
    """The `last` so many events, then, if asked, what arrives."""
    async with Reader(client, BEGINNING) as reader:
        first, end = await _bounds(reader)
        # The beginning of what is wanted was never read, so there is nothing that it could be compared with.
        reader.begin_after(max(first - 1, end - last))
        async for batch in reader.through(end, limit=READ_BATCH):
            for message in batch:
                yield stored(message)
        while forever:
            for message in await reader.batch(limit=READ_BATCH, linger_s=0, timeout_s=1):
                yield stored(message)


async def find_event(client: Client, event_id: str) -> StoredEvent | None:
    """The first message that holds this event; reads the stream through, since it has no index by id."""
    wanted = event_id.encode()
    async with Reader(client, BEGINNING) as reader:
        end = (await _bounds(reader))[1]
        async for batch in reader.through(end, limit=READ_BATCH):
            for message in batch:
                # The id stands near the beginning of the body; decoding all of it would take ten times as long.
                if wanted in message.body[:400]:
                    found = stored(message)
                    if found.event is not None and found.event.id == event_id:
                        return found
    return None


async def _bounds(reader: Reader) -> tuple[int, int]:
    try:
        state = await reader.state()
    except TRANSIENT as error:
        reason = str(error) or type(error).__name__
        raise Unreachable(
            f"stream {STREAM} cannot be read ({reason}): is NATS up, and did relight run there?"
        ) from error
    return state.first_seq, state.last_seq
