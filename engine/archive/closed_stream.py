"""The stream while it is restored: closed to everybody else, filled in order, and opened once it is whole."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

import uuid_utils
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import StreamInfo, SubjectTransform
from nats.js.errors import BadRequestError, NotFoundError

from relight.engine.errors import RestoreRefused
from relight.engine.log.publishing import (
    HEADERS,
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    WRONG_LAST_SEQUENCE,
    StreamRefused,
    request,
)
from relight.engine.log.reader import BEGINNING, Message, Reader
from relight.engine.log.topology import MESSAGE_ID, REQUEST_TIMEOUT_S, RESTORING, STREAM, stream_config

DOOR = "relight.restore."
"""In front of a message's subject: the server takes it off again, and nobody else publishes there."""
PLACEHOLDER = "ev.-.relight.-.placeholder"
"""Subject of what holds the place of a sequence that nothing stands on; purged before the stream is opened."""
SHORT_WINDOW_S = 0.1
"""The shortest that the server takes: within two minutes of restoring there may be days of message ids."""
NAME_TAKEN = 10058
"""JetStream error code: there is a stream of this name."""
AGAIN_S = 0.25
GIVE_UP_S = 60.0
READ_BATCH = 5_000

log = logging.getLogger(__name__)


class ClosedStream:
    """`last_seq`: where it ends; None as long as it is not there."""

    def __init__(self, client: Client, archive: str, *, replicas: int = 1) -> None:
        self._client = client
        self._js = client.jetstream(timeout=REQUEST_TIMEOUT_S)
        self._archive = archive
        self._replicas = replicas
        self.last_seq: int | None = None
        self.is_open = False

    async def look(self) -> None:
        """What is there now. An empty stream counts as none. Raises `RestoreRefused` where another restore left one."""
        info = await self._info()
        if info is None:
            return
        restoring = (info.config.metadata or {}).get(RESTORING)
        if restoring not in (None, self._archive):
            raise RestoreRefused(
                f"stream {STREAM} is half restored from archive {restoring}: go on from that one, or delete the stream"
            )
        self.is_open = restoring is None
        if self.is_open and info.state.last_seq == 0:
            self.is_open = False
        else:
            self.last_seq = info.state.last_seq

    async def existing(self) -> AsyncIterator[Message]:
        """What stands there, up to `last_seq`, placeholders included."""
        if not self.last_seq:
            return
        async with Reader(self._client, BEGINNING, restoring=True) as reader:
            async for messages in reader.through(self.last_seq, limit=READ_BATCH):
                for message in messages:
                    yield message

    async def write(self, messages: Sequence[Message], advanced: Callable[[int], None] = lambda events: None) -> None:
        """Behind what stands there, each at its own sequence. Raises `RestoreRefused` where another writes, too."""
        if not messages:
            return
        if self.last_seq is None:
            await self._create(messages[0].seq)
        for run in _runs(messages):
            await self._fill(run[0].seq - 1)
            for batch in _batches(run):
                await self._store(batch)
                advanced(len(batch))

    async def open(self) -> None:
        """Takes the placeholders away and lets everybody in; from then on nothing can be deleted any more."""
        if self.is_open:
            return
        if self.last_seq is None:
            await self._create(1)
        await self._js.purge_stream(STREAM, subject=PLACEHOLDER)
        info = await self._info()
        assert info is not None
        wanted = stream_config()
        metadata = {name: value for name, value in (info.config.metadata or {}).items() if name != RESTORING}
        await self._js.update_stream(
            info.config.evolve(
                subjects=wanted.subjects,
                subject_transform=None,
                duplicate_window=wanted.duplicate_window,
                deny_delete=wanted.deny_delete,
                metadata=metadata,
            )
        )
        self.is_open = True

    async def _info(self) -> StreamInfo | None:
        try:
            return await self._js.stream_info(STREAM)
        except NotFoundError:
            return None

    async def _create(self, first_seq: int) -> None:
        closed = {
            "subjects": [f"{DOOR}>"],
            "subject_transform": SubjectTransform(src=f"{DOOR}>", dest=">"),
            "metadata": {RESTORING: self._archive},
        }
        wanted = stream_config(self._replicas).evolve(
            **closed,
            first_seq=first_seq if first_seq > 1 else None,
            duplicate_window=SHORT_WINDOW_S,
            deny_delete=False,
        )
        while True:
            if (info := await self._info()) is not None:
                # Recorders declare the stream where there is none: closed before one looks whether it still is empty.
                await self._js.update_stream(info.config.evolve(**closed))
                if (info := await self._info()) is not None and info.state.last_seq > 0:
                    raise RestoreRefused(
                        f"stream {STREAM} was written to just now: stop whoever records, and begin again"
                    )
                await self._js.delete_stream(STREAM)
            try:
                await self._js.add_stream(wanted)
                break
            except BadRequestError as error:
                if error.err_code != NAME_TAKEN:
                    raise
        self.last_seq = first_seq - 1

    async def _fill(self, through_seq: int) -> None:
        """With placeholders."""
        assert self.last_seq is not None
        for first in range(self.last_seq + 1, through_seq + 1, MAX_BATCH_EVENTS):
            last = min(first + MAX_BATCH_EVENTS - 1, through_seq)
            await self._store([Message(seq, 0, PLACEHOLDER, b"") for seq in range(first, last + 1)])

    async def _store(self, batch: Sequence[Message]) -> None:
        """Until it is there: after an error or a silence, the stream's end says what of it was stored."""
        deadline = asyncio.get_running_loop().time() + GIVE_UP_S
        left, singly = list(batch), len(batch) == 1
        while left:
            try:
                await (self._publish_singly(left) if singly else self._publish_at_once(left))
                return
            except StreamRefused as error:
                if error.code not in WRONG_LAST_SEQUENCE:
                    singly = True  # a message id twice within the window, or too many batches open
                    log.info("publishing singly: %s", error, extra={"action": "restore_singly"})
                failure: Exception = error
            except (NatsError, TimeoutError, OSError) as error:
                failure = error
            await asyncio.sleep(AGAIN_S)
            if asyncio.get_running_loop().time() > deadline:
                raise failure
            end = await self._end(batch[-1].seq)
            left = [message for message in left if message.seq > end]

    async def _end(self, at_most: int) -> int:
        try:
            info = await self._info()
        except (NatsError, TimeoutError, OSError):
            return self.last_seq or 0
        if info is None or not (self.last_seq or 0) <= info.state.last_seq <= at_most:
            raise RestoreRefused(f"stream {STREAM} is written to by another: stop it, and begin again")
        self.last_seq = info.state.last_seq
        return self.last_seq

    async def _publish_at_once(self, batch: Sequence[Message]) -> None:
        batch_id = uuid_utils.uuid4().hex
        for number, message in enumerate(batch, 1):
            headers = _headers(message) | {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
            if number == 1:
                headers["Nats-Expected-Last-Sequence"] = str(message.seq - 1)
            if number < len(batch):
                await self._client.publish(DOOR + message.subject, message.body, headers=headers)
            else:
                headers["Nats-Batch-Commit"] = "1"
                self.last_seq = (await request(self._client, DOOR + message.subject, message.body, headers))[0]

    async def _publish_singly(self, batch: Sequence[Message]) -> None:
        for message in batch:
            headers = _headers(message) | {"Nats-Expected-Last-Sequence": str(message.seq - 1)}
            while True:
                seq, duplicate = await request(self._client, DOOR + message.subject, message.body, headers)
                if not duplicate:
                    break
                await asyncio.sleep(
                    2 * SHORT_WINDOW_S
                )  # the archive holds the message id twice, and so will the stream
            self.last_seq = seq


def _headers(message: Message) -> dict[str, str]:
    return {**HEADERS, MESSAGE_ID: message.message_id} if message.message_id else dict(HEADERS)


def _runs(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """Without holes."""
    run: list[Message] = []
    for message in messages:
        if run and message.seq != run[-1].seq + 1:
            yield run
            run = []
        run.append(message)
    if run:
        yield run


def _batches(run: Sequence[Message]) -> Iterator[list[Message]]:
    batch: list[Message] = []
    size = 0
    for message in run:
        size += len(message.body)
        if batch and (size > MAX_BATCH_BYTES or len(batch) == MAX_BATCH_EVENTS):
            yield batch
            batch, size = [], len(message.body)
        batch.append(message)
    if batch:
        yield batch
