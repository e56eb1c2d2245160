"""Reads the stream by its own position: every message once and in order, and notices when the log was rewound."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from relight.engine.errors import Rewound
from relight.engine.log.answers import answered
from relight.engine.log.chain import message_sha256
from relight.engine.log.topology import MESSAGE_ID, RESTORING, STREAM
from relight.events.subjects import OBSERVATIONS

IDLE_HEARTBEAT_S = 1.0
GIVE_UP_S = 30.0
SILENCE_S = 3.0
"""Without a message or heartbeat for so long, the consumer is taken for dead and made anew."""
LINGERS = 2
"""Batches within so many times the linger follow each other closely."""
ALONE_S = 0.001
"""For what was published together with the first message after a pause."""
MAX_BUFFERED = 20_000
CHECK_EVERY_S = 5.0
ANSWER_S = 15.0
RETRY_S = 0.2
TRANSIENT = (NatsError, TimeoutError, OSError)
OBSERVED = f"{OBSERVATIONS}.>"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it stands on the stream; `timestamp_ns` is the stream's own, Unix nanoseconds.

    `message_id` is that of its headers; empty where the client leaves them unread.
    """

    seq: int
    timestamp_ns: int
    subject: str
    body: bytes
    message_id: str = ""

    @property
    def sha256(self) -> str:
        return message_sha256(self.subject, self.body)

    @property
    def timestamp_ms(self) -> int:
        return self.timestamp_ns // 1_000_000

    @property
    def timestamp(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.timestamp_ns // 1_000)


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place on the stream and what stood there; seq 0 is its beginning, where nothing can differ."""

    seq: int
    sha256: str


BEGINNING = Anchor(0, "")
UNREAD = ""
"""The hash of a place that was never read: nothing is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """Where the stream begins and ends now."""

    first_seq: int
    last_seq: int
    messages: int


class Reader:
    """A push consumer without acknowledgements, made anew whenever its continuity is in doubt.

    `position` is the last message taken; before going on from it after a reconnect, and every few seconds, the
    message there is compared. `batch` raises `Rewound` when it differs. A stream that is being restored is waited for,
    but by who does it (`restoring`).
    """

    def __init__(self, client: Client, position: Anchor, *, restoring: bool = False) -> None:
        self._client = client
        self._restoring = restoring
        self._js = client.jetstream(timeout=5)
        self.position = position
        self._buffer: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._subscription: Subscription | None = None
        self._consumer: str | None = None
        self._generation = 0
        self._expected = 0
        self._heard_at = 0.0
        self._checked_at = 0.0
        self._taken_at = 0.0
        self._reconnects = 0
        self._flow_reply: str | None = None
        self.last_seq = 0
        """Last sequence of the stream, as far as messages and checks have told."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._unsubscribe()

    def move_to(self, position: Anchor) -> None:
        """Goes on from there with the next `batch`."""
        self.position = position
        self._expected = 0

    def begin_after(self, seq: int) -> None:
        """Begins there although nothing was read there: for looking, not for folding."""
        self.move_to(Anchor(seq, UNREAD) if seq else BEGINNING)

    async def batch(self, *, limit: int, linger_s: float, timeout_s: float) -> Sequence[Message]:
        """What has arrived: up to `limit` messages in ascending `seq`.

        Where batches follow each other closely, waits `linger_s` for more; after a pause hardly at all.
        Empty when nothing arrives within `timeout_s`. Raises `Rewound`; a server that is away is waited for.
        """
        try:
            await answered(self._client, self._make_sure(), within_s=ANSWER_S)
        except TRANSIENT as error:
            log.info("stream cannot be read yet: %r", error, extra={"action": "read_retry"})
            self._expected = 0
            await asyncio.sleep(min(RETRY_S, timeout_s))
            return ()
        if not self._buffer:
            await self._wait(timeout_s)
        now = asyncio.get_running_loop().time()
        if linger_s and 0 < len(self._buffer) < limit:
            await asyncio.sleep(linger_s if now - self._taken_at < LINGERS * linger_s else ALONE_S)
        taken = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        if taken:
            self.position = Anchor(taken[-1].seq, taken[-1].sha256)
            self._taken_at = asyncio.get_running_loop().time()
        await self._resume_flow()
        return taken

    async def through(self, end: int, *, limit: int) -> AsyncIterator[Sequence[Message]]:
        """Batches up to sequence `end`; earlier where the last messages before it were purged.

        Raises `Rewound`, and `TimeoutError` when nothing comes for long.
        """
        heard_at = asyncio.get_running_loop().time()
        while self.position.seq < end:
            # Where no sequence is missing, nothing beyond the end is taken, and reading can go on from there.
            messages = await self.batch(limit=min(limit, end - self.position.seq), linger_s=0, timeout_s=1)
            silent_s = asyncio.get_running_loop().time() - heard_at
            if messages:
                heard_at = asyncio.get_running_loop().time()
                yield messages if messages[-1].seq <= end else [m for m in messages if m.seq <= end]
            elif silent_s > GIVE_UP_S:
                raise TimeoutError(f"nothing came for {GIVE_UP_S:g} s")
            elif silent_s > IDLE_HEARTBEAT_S and await self.is_at_end():
                return

    async def is_at_end(self) -> bool:
        """Whether nothing stands on the stream beyond the position."""
        try:
            await self._js.get_msg(STREAM, self.position.seq + 1, subject=">", next=True)
        except NotFoundError:
            return True
        return False

    async def state(self) -> StreamState:
        """Raises a `nats.errors.Error` or `TimeoutError` when the server is away."""
        state = (await self._js.stream_info(STREAM)).state
        self.last_seq = max(state.last_seq, self.position.seq)
        return StreamState(first_seq=state.first_seq, last_seq=state.last_seq, messages=state.messages)

    async def holds(self, anchor: Anchor) -> bool:
        """Whether what stands at the anchor is what was read there; so, too, where the stream was trimmed since.

        Trimmed is a place where nothing stands, and no observation before it: rulings stay.
        """
        if anchor.seq == 0 or anchor.sha256 == UNREAD:
            return True
        state = await self.state()
        if state.last_seq < anchor.seq:
            return False
        if state.first_seq > anchor.seq:
            return True
        try:
            found = await self._js.get_msg(STREAM, anchor.seq)
        except NotFoundError:
            first = await self.first_observation()
            return first is not None and first > anchor.seq
        return message_sha256(found.subject or "", found.data or b"") == anchor.sha256

    async def first_observation(self) -> int | None:
        """Where the first one stands; None where there is none."""
        try:
            return (await self._js.get_msg(STREAM, 1, subject=OBSERVED, next=True)).seq
        except NotFoundError:
            return None

    async def _make_sure(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._client.is_connected:
            self._expected = 0
            raise TimeoutError("not connected to NATS")
        reconnects = self._client.stats["reconnects"]
        if self._expected == 0 or reconnects != self._reconnects or now - self._heard_at > SILENCE_S:
            self._reconnects = reconnects
            await self._wait_until_restored()
            await self._check(now)
            await self._subscribe()
        elif now - self._checked_at > CHECK_EVERY_S:
            await self._check(now)

    async def _check(self, now: float) -> None:
        if not await self.holds(self.position):
            self._expected = 0
            raise Rewound(
                f"message {self.position.seq} of stream {STREAM} is not the one that was read there: the stream was put"
                " back to an older copy; read it again"
            )
        self._checked_at = now

    async def _subscribe(self) -> None:
        await self._unsubscribe()
        self._generation += 1
        self._buffer.clear()
        generation = self._generation
        inbox = self._client.new_inbox()

        async def on_message(message: Msg) -> None:
            if generation == self._generation:
                await self._take(message)

        self._expected = 1
        self._heard_at = asyncio.get_running_loop().time()
        self._subscription = await self._client.subscribe(
            inbox, cb=on_message, pending_msgs_limit=0, pending_bytes_limit=0
        )
        info = await self._js.add_consumer(
            STREAM,
            ConsumerConfig(
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self.position.seq + 1,
                ack_policy=AckPolicy.NONE,
                flow_control=True,
                idle_heartbeat=IDLE_HEARTBEAT_S,
                mem_storage=True,
                num_replicas=1,
                inactive_threshold=30,
            ),
        )
        self._consumer = info.name

    async def _wait_until_restored(self) -> None:
        """Before anything is compared: one that is being restored is incomplete, and has placeholders in it."""
        if self._restoring:
            return
        metadata = (await self._js.stream_info(STREAM)).config.metadata or {}
        if RESTORING in metadata:
            raise TimeoutError(f"stream {STREAM} is being restored from archive {metadata[RESTORING]}: wait for it")

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        consumer, self._consumer = self._consumer, None
        self._expected = 0
        try:
            if subscription is not None:
                await subscription.unsubscribe()
            if consumer is not None:
                await self._js.delete_consumer(STREAM, consumer)
        except (*TRANSIENT, NotFoundError):
            return  # the server forgets an idle consumer by itself

    async def _take(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if message.headers and message.headers.get("Status") == "100":
            await self._control(message)
            return
        if not message.reply.startswith("$JS.ACK."):
            return  # some other status of the server's
        seq, consumer_seq, timestamp_ns, pending = positions(message)
        if consumer_seq != self._expected:
            self._expected = 0  # something was dropped on the way: `batch` makes a new consumer
            self._arrived.set()
            return
        self._expected += 1
        self.last_seq = max(self.last_seq, seq + pending)
        message_id = (message.headers or {}).get(MESSAGE_ID, "")
        self._buffer.append(Message(seq, timestamp_ns, message.subject, message.data, message_id))
        self._arrived.set()

    async def _control(self, message: Msg) -> None:
        """Idle heartbeats only show life; a flow control request is answered once there is room."""
        reply = message.reply or (message.headers or {}).get("Nats-Consumer-Stalled")
        if reply:
            self._flow_reply = reply
            await self._resume_flow()

    async def _resume_flow(self) -> None:
        if self._flow_reply is not None and len(self._buffer) < MAX_BUFFERED:
            reply, self._flow_reply = self._flow_reply, None
            try:
                await self._client.publish(reply)
            except TRANSIENT:
                return  # disconnected: the consumer is made anew

    async def _wait(self, timeout_s: float) -> None:
        self._arrived.clear()
        # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with a message.
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()


def positions(message: Msg) -> tuple[int, int, int, int]:
    """Stream sequence, consumer sequence, timestamp in nanoseconds, messages still to come."""
    tokens = message.reply.split(".")
    if len(tokens) == 9:
        return int(tokens[5]), int(tokens[6]), int(tokens[7]), int(tokens[8])
    return int(tokens[7]), int(tokens[8]), int(tokens[9]), int(tokens[10])
