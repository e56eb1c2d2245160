"""How far each publisher is projected: pushed by the projector over core NATS, and asked for besides."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from relight.engine.errors import DeadLettered
from relight.engine.log.answers import answered

QUESTION = "cmd.watermark"
ASK_AGAIN_S = 0.002
ASK_EVERY_S = 0.5
ASK_AT_LEAST_EVERY_S = 5.0
ASK_TIMEOUT_S = 2.0


def push_subject(publisher: str) -> str:
    """Where the projector announces this publisher's progress; hashed, since an identity may be long."""
    return f"watermark.{hashlib.sha256(publisher.encode()).hexdigest()[:32]}"


def announcement(projected_pseq: int, dead: Mapping[int, str]) -> bytes:
    """Every number up to `projected_pseq` is folded or a dead letter; `dead` gives the reasons of the latter.

    In answer to a question it is enough that the asked number is, if others below are missing.
    """
    return orjson.dumps({"pseq": projected_pseq, "dead": {str(pseq): reason for pseq, reason in dead.items()}})


@dataclass(slots=True)
class Pushed:
    """What the projector announces of one publisher, for as long as somebody here waits for it."""

    waiting: int = 0
    pseq: int = 0
    subscription: Subscription | None = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def advance(self, pseq: int) -> None:
        self.pseq = max(self.pseq, pseq)
        self.moved.set()
        self.moved = asyncio.Event()

    async def comes_to(self, pseq: int, within_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.pseq < pseq:
                    await self.moved.wait()


class ProjectedWatermarks:
    """Waits, in its client's loop, until a publisher's events are visible in the tables."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pushed: dict[str, Pushed] = {}
        self._known: dict[str, int] = {}

    async def reached(self, publisher: str, pseq: int) -> None:
        """Returns once `pseq` is projected; raises `DeadLettered` when the projector refused it.

        A push only says when to ask again: what it said of earlier numbers' dead letters may have been missed.
        """
        every_s, again_s = ASK_EVERY_S, ASK_AGAIN_S
        async with self._listening(publisher) as pushed:
            while True:
                if (answer := await self._ask(publisher, pseq)) is not None:
                    projected_pseq, dead = answer
                    if reason := dead.get(str(pseq)):
                        raise DeadLettered(
                            f"event {pseq} of {publisher} is a dead letter ({reason}): see `relight deadletter list`"
                        )
                    if projected_pseq >= pseq:
                        return
                if pushed.pseq >= pseq:  # the push overtook an answer that was read before it
                    await asyncio.sleep(again_s)
                    again_s = min(2 * again_s, ASK_EVERY_S)
                else:
                    await pushed.comes_to(pseq, every_s)
                    every_s = min(2 * every_s, ASK_AT_LEAST_EVERY_S)

    async def ask(self, publisher: str) -> int:
        """The number up to which all are projected, as the projector says or last said; 0 when it never did."""
        if (answer := await self._ask(publisher, 0)) is not None:
            self._known[publisher] = max(self._known.get(publisher, 0), answer[0])
        return self._known.get(publisher, 0)

    async def _ask(self, publisher: str, pseq: int) -> tuple[int, dict[str, str]] | None:
        question = orjson.dumps({"publisher": publisher, "pseq": pseq})
        try:
            asking = self._client.request(QUESTION, question, timeout=ASK_TIMEOUT_S)
            answer = await answered(self._client, asking, within_s=ASK_TIMEOUT_S + 1)
            said = orjson.loads(answer.data)
            return int(said["pseq"]), dict(said["dead"])
        except (NatsError, TimeoutError, OSError, ValueError, KeyError, TypeError):
            return None  # no projector runs, or it cannot reach its tables: asked again

    @asynccontextmanager
    async def _listening(self, publisher: str) -> AsyncIterator[Pushed]:
        pushed = self._pushed.setdefault(publisher, Pushed())
        pushed.waiting += 1
        try:
            if pushed.subscription is None:
                with suppress(NatsError, OSError):  # then asking alone must do
                    await self._subscribe(publisher, pushed)
            yield pushed
        finally:
            pushed.waiting -= 1
            if pushed.waiting == 0:
                del self._pushed[publisher]
            if pushed.waiting == 0 and pushed.subscription is not None:
                with suppress(NatsError, OSError):
                    await pushed.subscription.unsubscribe()

    async def _subscribe(self, publisher: str, pushed: Pushed) -> None:
        async def on_push(message: Msg) -> None:
            pushed.advance(int(orjson.loads(message.data)["pseq"]))

        subscription = await self._client.subscribe(push_subject(publisher), cb=on_push)
        if pushed.subscription is None:
            pushed.subscription = subscription
        else:
            await subscription.unsubscribe()
