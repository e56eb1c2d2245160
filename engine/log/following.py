"""Follows some subjects of the stream from a moment on: in its order, and never missing one without saying so."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from relight.engine.errors import Unreachable
from relight.engine.log.answers import answered
from relight.engine.log.reader import TRANSIENT, Message, positions
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM

IDLE_HEARTBEAT_S = 1.0
SILENCE_S = 3.0
"""Without a message or heartbeat for so long, the consumer is taken for dead."""
INACTIVE_S = 30.0
LAST = DeliverPolicy.LAST_PER_SUBJECT


class Follower:
    """An ephemeral consumer without acknowledgements, for few messages that matter at once.

    `take` raises `Unreachable` when something may have been missed: then begin anew, from a moment before. Core
    subscriptions would not do: they also see what the stream refuses. Without `since` it begins with the last message
    of each subject: enough where that one says all.
    """

    def __init__(
        self,
        client: Client,
        subjects: Sequence[str],
        *,
        since: datetime | None,
        arrived: Callable[[], None],
        many: bool = False,
    ) -> None:
        """`many`: there may be more at once than a client takes in."""
        self._client = client
        self._subjects = list(subjects)
        self._since = since
        self._arrived = arrived
        self._many = many or since is None
        self._js = client.jetstream(timeout=REQUEST_TIMEOUT_S)
        self._reconnects = client.stats["reconnects"]
        self._buffer: deque[Message] = deque()
        self._subscription: Subscription | None = None
        self._consumer: str | None = None
        self._received = 0
        self._missed = False
        self._heard_at = 0.0
        self._pending = 0
        self._began_at = 0
        self._position = 0

    @property
    def behind(self) -> bool:
        """There was more on the stream when it began than was taken by now."""
        return self._pending > 0

    @property
    def position(self) -> int:
        """Every message up to this sequence was taken."""
        return self._position if self.behind else max(self._position, self._began_at)

    async def __aenter__(self) -> Self:
        asking = self._js.stream_info(STREAM)
        self._began_at = (await answered(self._client, asking, within_s=REQUEST_TIMEOUT_S + 1)).state.last_seq
        inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(
            inbox, cb=self._received_one, pending_msgs_limit=0, pending_bytes_limit=0
        )
        adding = self._js.add_consumer(
            STREAM,
            ConsumerConfig(
                deliver_subject=inbox,
                deliver_policy=LAST if self._since is None else DeliverPolicy.BY_START_TIME,
                opt_start_time=self._since,
                filter_subjects=self._subjects,
                ack_policy=AckPolicy.NONE,
                idle_heartbeat=IDLE_HEARTBEAT_S,
                flow_control=self._many,
                mem_storage=True,
                num_replicas=1,
                inactive_threshold=INACTIVE_S,
            ),
        )
        info = await answered(self._client, adding, within_s=REQUEST_TIMEOUT_S + 1)
        self._consumer = info.name
        self._heard_at = asyncio.get_running_loop().time()
        # What it delivered in the meantime is counted by both.
        self._pending = (info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subscription, self._subscription = self._subscription, None
        if isinstance(error, asyncio.CancelledError) or not self._client.is_connected:
            return  # the server forgets an idle consumer by itself
        with suppress(*TRANSIENT, NotFoundError):
            if subscription is not None:
                await subscription.unsubscribe()
            if self._consumer is not None:
                await self._js.delete_consumer(STREAM, self._consumer)

    def take(self) -> Message | None:
        """The next message that arrived. Raises `Unreachable`."""
        client, now = self._client, asyncio.get_running_loop().time()
        if not client.is_connected or client.stats["reconnects"] != self._reconnects:
            raise Unreachable("the connection to NATS was lost: what it sent meanwhile is read again")
        if self._missed:
            raise Unreachable("a message of the stream did not arrive: it is read again")
        if now - self._heard_at > SILENCE_S:
            raise Unreachable(f"the stream's consumer is silent for {SILENCE_S:g} s: another one is made")
        if not self._buffer:
            return None
        message = self._buffer.popleft()
        self._position = message.seq
        self._pending -= 1
        return message

    async def _received_one(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        headers = message.headers or {}
        if headers.get("Status") == "100":
            if message.reply:
                await message.respond(b"")  # all that came before it is here
            last = headers.get("Nats-Last-Consumer")
            self._missed |= last is not None and int(last) != self._received
        elif message.reply.startswith("$JS.ACK."):
            seq, consumer_seq, timestamp_ns, _ = positions(message)
            self._received += 1
            self._missed |= consumer_seq != self._received
            self._buffer.append(Message(seq, timestamp_ns, message.subject, message.data))
        self._arrived()
