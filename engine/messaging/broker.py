"""The broker: which subjects are listened to, how, and by which function each message is handled."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from faststream.message import StreamMessage
from faststream.nats import NatsBroker, NatsResponse
from faststream.nats.annotations import NatsMessage
from faststream.nats.subscriber.usecases.core_subscriber import ConcurrentCoreSubscriber, CoreSubscriber
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from relight.engine.log.topology import RECONNECT_S, addresses
from relight.engine.log.watermarks import QUESTION
from relight.engine.messaging.subjects import COMMANDS, EVENTS, QUEUE
from relight.engine.messaging.telemetry import Middleware

MAX_EVENT_MESSAGES: Final = 2_048
MAX_COMMANDS: Final = 1_024
POLL_S = 0.02
QUIET_LOOKS = 25
"""So often in a row nothing is at hand: then what was delivered and never begun was dropped on the way."""

Handler = Callable[[NatsMessage], Awaitable[NatsResponse]]
Overheard = Callable[[NatsMessage], Awaitable[None]]

log = logging.getLogger(__name__)


def build_broker(
    nats_url: str,
    *,
    on_event: Handler | None,
    on_command: Handler,
    on_question: Overheard,
    middlewares: Sequence[Middleware] = (),
    on_error: Callable[[Exception], Awaitable[None]] | None = None,
    begun: Counter[str] | None = None,
) -> NatsBroker:
    """Not connected yet. `on_question` hears every question for a watermark, whichever replica answers it.

    `begun` counts the messages of each subscription that came to their handler; `stop_taking` needs it.
    """
    counts: Counter[str] = Counter() if begun is None else begun
    broker = NatsBroker(
        addresses(nats_url),
        name="relight service",
        dont_randomize=True,
        # By default it gives up after two minutes, for good.
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type]  # it sleeps so long: fractions will do
        connect_timeout=2,
        ping_interval=5,
        max_outstanding_pings=2,
        error_cb=on_error,
        decoder=_undecoded,
        middlewares=middlewares,
        # `stop_taking` has waited already.
        graceful_timeout=1,
        logger=None,
    )
    if on_event is not None:
        broker.subscriber(EVENTS, queue=QUEUE, max_workers=MAX_EVENT_MESSAGES)(_counted(on_event, EVENTS, counts))
    broker.subscriber(COMMANDS, queue=QUEUE, max_workers=MAX_COMMANDS)(_counted(on_command, COMMANDS, counts))
    # Without a queue group: only the replica that projects can announce progress, and another one may be asked.
    broker.subscriber(QUESTION, no_reply=True, include_in_schema=False)(on_question)
    return broker


def _counted(handler: Handler, subject: str, begun: Counter[str]) -> Handler:
    async def counted(message: NatsMessage) -> NatsResponse:
        begun[subject] += 1
        return await handler(message)

    return counted


async def stop_taking(broker: NatsBroker, begun: Counter[str], *, within_s: float) -> None:
    """Leaves new messages to the other replicas and waits for the answers to those at hand.

    FastStream's own stop goes on receiving while it waits, and throws away what it receives.
    """
    subscribers = [one for one in broker.subscribers if isinstance(one, CoreSubscriber)]
    with suppress(NatsError, OSError, TimeoutError):
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(_stopped(subscriber, begun) for subscriber in subscribers))


async def _stopped(subscriber: CoreSubscriber, begun: Counter[str]) -> None:
    subscription = subscriber.subscription
    if subscription is None:
        return
    subscriber.subscription = None  # unsubscribing from it once more would be an error
    await subscription.drain()  # type: ignore[no-untyped-call]
    looks = 0
    while isinstance(subscriber, ConcurrentCoreSubscriber) and looks < QUIET_LOOKS:
        # A message on its way from the queue to its task shows in neither, and on a busy loop for longer than a look:
        # found as a request that was never answered. It has not begun, though it was delivered.
        if subscriber.limiter.value < subscriber.max_workers:
            looks = 0
        elif begun[subscriber.subject.broker_address] >= subscription.delivered:
            return
        else:
            looks += 1
        await asyncio.sleep(POLL_S)


async def _undecoded(message: StreamMessage[Msg]) -> bytes:
    """FastStream would parse JSON by the content type and drop what is none; here that is answered."""
    body: bytes = message.body
    return body
