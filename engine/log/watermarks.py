"""How far each publisher is projected: pushed by the projector over core NATS, and asked for where a push was missed."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Future

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from relight.engine.errors import DeadLettered
from relight.engine.log.receipts import Watermark
from relight.events.subjects import token

QUESTION = "cmd.watermark"
ASK_EVERY_S = 0.5
ASK_TIMEOUT_S = 2.0


def push_subject(publisher: str) -> str:
    """Where the projector announces this publisher's progress."""
    return f"watermark.{token(publisher)}"


def announcement(projected_pseq: int, dead: Mapping[int, str]) -> bytes:
    """Every number up to `projected_pseq` is folded or a dead letter; `dead` gives the reasons of the latter."""
    return orjson.dumps({"pseq": projected_pseq, "dead": {str(pseq): reason for pseq, reason in dead.items()}})


class ProjectedWatermarks:
    """Waits, in its client's loop, until a publisher's events are visible in the tables."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._watermarks: defaultdict[str, Watermark] = defaultdict(Watermark)
        self._subscribed: set[str] = set()
        self._dead: dict[tuple[str, int], str] = {}

    def value(self, publisher: str) -> int:
        """The highest number known to be projected; 0 when nobody asked yet."""
        return self._watermarks[publisher].value

    async def reached(self, publisher: str, pseq: int) -> None:
        """Returns once `pseq` is projected; raises `DeadLettered` when the projector refused it."""
        await self._subscribe(publisher)
        future: Future[None] = Future()
        self._watermarks[publisher].when(pseq, future)
        waiting = asyncio.wrap_future(future)
        while not waiting.done():
            await self.ask(publisher, pseq)
            await asyncio.wait([waiting], timeout=ASK_EVERY_S)
        if reason := self._dead.get((publisher, pseq)):
            raise DeadLettered(
                f"event {pseq} of {publisher} is a dead letter ({reason}): see `relight deadletter list`"
            )

    async def _subscribe(self, publisher: str) -> None:
        if publisher in self._subscribed:
            return
        self._subscribed.add(publisher)

        async def on_push(message: Msg) -> None:
            self._take(publisher, message.data)

        await self._client.subscribe(push_subject(publisher), cb=on_push)

    async def ask(self, publisher: str, pseq: int) -> int:
        """Asks the projector itself; returns the highest number known, whether it answered or not."""
        question = orjson.dumps({"publisher": publisher, "pseq": pseq})
        try:
            answer = await asyncio.wait_for(
                self._client.request(QUESTION, question, timeout=ASK_TIMEOUT_S), ASK_TIMEOUT_S + 1
            )
        except (NatsError, TimeoutError):
            return self.value(publisher)
        self._take(publisher, answer.data)
        return self.value(publisher)

    def _take(self, publisher: str, data: bytes) -> None:
        said = orjson.loads(data)
        for pseq, reason in said["dead"].items():
            self._dead[publisher, int(pseq)] = reason
        self._watermarks[publisher].advance(int(said["pseq"]))


