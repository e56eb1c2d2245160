"""How far each publisher is projected: pushed by the projector over core NATS, and asked for besides."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from relight.engine.errors import DeadLettered
from relight.engine.log.answers import answered
from relight.events.envelope import GENESIS

QUESTION = "cmd.watermark"
ASK_AGAIN_S = 0.002
ASK_EVERY_S = 0.5
ASK_AT_LEAST_EVERY_S = 5.0
ASK_TIMEOUT_S = 2.0
MAX_ASKED = 1_000
"""Numbers in one question."""


def push_subject(publisher: str) -> str:
    """Where the projector announces this publisher's progress; hashed, since an identity may be long."""
    return f"watermark.{hashlib.sha256(publisher.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Sealed:
    """Up to where an archive has come: on the stream, and with an unbroken chain of the publisher asked for."""

    archive: str
    last_seq: int
    pseq: int = 0
    sha256: str = GENESIS


def announcement(
    projected_pseq: int,
    dead: Mapping[int, str],
    reached: Sequence[int] | None = None,
    *,
    head: tuple[int, str] | None = None,
    archives: Sequence[Sealed] | None = None,
) -> bytes:
    """Every number up to `projected_pseq` is folded or a dead letter; `dead` gives the reasons of the latter.

    In answer to a question it is enough that the asked number is, if others below are missing; `reached` are those
    that are, where several were asked for. `head` is the highest number in the tables and its SHA-256; `archives` are
    all that there are.
    """
    said: dict[str, object] = {"pseq": projected_pseq, "dead": {str(pseq): reason for pseq, reason in dead.items()}}
    if reached is not None:
        said["reached"] = reached
    if head is not None:
        said["head"] = head
    if archives is not None:
        said["archives"] = [asdict(archive) for archive in archives]
    return orjson.dumps(said)


class Waiting:
    """Those of this process who wait for one publisher, and what wakes whoever asks for them."""

    def __init__(self) -> None:
        self._futures: dict[int, list[asyncio.Future[None]]] = {}
        self._woken = asyncio.Event()
        self._joined = False
        self.pushed_pseq = 0
        self.asking: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        return bool(self._futures)

    def add(self, pseq: int) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(pseq, []).append(future)
        self._joined = True
        self._woken.set()
        return future

    def remove(self, pseq: int, future: "asyncio.Future[None]") -> None:
        if future in (others := self._futures.get(pseq, [])):
            others.remove(future)
            if not others:
                del self._futures[pseq]

    def numbers(self) -> list[list[int]]:
        """In parts as large as one question may be; whoever joins from now on was not asked for."""
        self._joined = False
        numbers = sorted(self._futures)
        return [numbers[first : first + MAX_ASKED] for first in range(0, len(numbers), MAX_ASKED)]

    def settle(self, pseq: int, error: Exception | None = None) -> None:
        for future in self._futures.pop(pseq, ()):
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def advance(self, pseq: int) -> None:
        """The projector's push."""
        self.pushed_pseq = max(self.pushed_pseq, pseq)
        self._woken.set()

    @property
    def joined(self) -> bool:
        """Somebody came after the last question."""
        return self._joined

    @property
    def overtaken(self) -> bool:
        """A push came to somebody's number, whom the answer that was read before it did not tell."""
        return any(pseq <= self.pushed_pseq for pseq in self._futures)

    async def woken(self, within_s: float) -> None:
        """Returns when somebody joins, or a push came to somebody's number."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not (self._joined or self.overtaken):
                    self._woken.clear()
                    await self._woken.wait()


class ProjectedWatermarks:
    """Waits, in its client's loop, until a publisher's events are visible in the tables.

    However many wait for a publisher, one asks for all of them.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: dict[str, Waiting] = {}
        self._known: dict[str, int] = {}

    async def reached(self, publisher: str, pseq: int) -> None:
        """Returns once `pseq` is projected; raises `DeadLettered` when the projector refused it."""
        waiting = self._waiting.setdefault(publisher, Waiting())
        future = waiting.add(pseq)
        if waiting.asking is None:
            waiting.asking = asyncio.create_task(self._ask_for(publisher, waiting), name="watermarks")
        try:
            await future
        finally:
            waiting.remove(pseq, future)
            if not waiting and self._waiting.get(publisher) is waiting:
                del self._waiting[publisher]
                waiting.asking.cancel()

    async def _ask_for(self, publisher: str, waiting: Waiting) -> None:
        """Until cancelled. A push only says when to ask again: of earlier numbers' dead letters it does not tell."""
        every_s, again_s = ASK_EVERY_S, ASK_AGAIN_S
        async with self._listening(publisher, waiting):
            while True:
                for asked in waiting.numbers():
                    if (answer := await self._ask(publisher, asked)) is not None:
                        _settle(waiting, publisher, asked, answer)
                if waiting.joined:
                    every_s, again_s = ASK_EVERY_S, ASK_AGAIN_S
                    await asyncio.sleep(ASK_AGAIN_S)  # for those who join with them
                elif waiting.overtaken:
                    await asyncio.sleep(again_s)
                    again_s = min(2 * again_s, ASK_EVERY_S)
                else:
                    await waiting.woken(every_s)
                    every_s = min(2 * every_s, ASK_AT_LEAST_EVERY_S)

    async def ask(self, publisher: str) -> int:
        """The number up to which all are projected, as the projector says or last said; 0 when it never did."""
        if (answer := await self._ask(publisher, [0])) is not None:
            self._known[publisher] = max(self._known.get(publisher, 0), answer.pseq)
        return self._known.get(publisher, 0)

    async def standing(self, publisher: str) -> "Answer | None":
        """How far the publisher is projected and sealed; None where nobody answers.

        Of a release before this one the answer tells of neither `head` nor `archives`.
        """
        return await self._ask(publisher, [0], archives=True)

    async def _ask(self, publisher: str, pseqs: Sequence[int], *, archives: bool = False) -> "Answer | None":
        question: dict[str, object] = {"publisher": publisher, "pseq": pseqs[0]}
        if len(pseqs) > 1:
            question["others"] = pseqs[1:]
        if archives:
            question["archives"] = True
        try:
            asking = self._client.request(QUESTION, orjson.dumps(question), timeout=ASK_TIMEOUT_S)
            answer = await answered(self._client, asking, within_s=ASK_TIMEOUT_S + 1)
            return Answer.read(answer.data, pseqs[0])
        except (NatsError, TimeoutError, OSError, ValueError, KeyError, TypeError):
            return None  # no projector runs, or it cannot reach its tables: asked again

    @asynccontextmanager
    async def _listening(self, publisher: str, waiting: Waiting) -> AsyncIterator[None]:
        async def on_push(message: Msg) -> None:
            waiting.advance(int(orjson.loads(message.data)["pseq"]))

        subscription: Subscription | None = None
        with suppress(NatsError, OSError):  # then asking alone must do
            subscription = await self._client.subscribe(push_subject(publisher), cb=on_push)
        try:
            yield
        finally:
            if subscription is not None:
                with suppress(NatsError, OSError):
                    await subscription.unsubscribe()


@dataclass(frozen=True, slots=True)
class Answer:
    """`reached`: of the numbers that were asked for, those that are folded or dead letters.

    `head` and `archives` are None where the answer does not tell of them.
    """

    pseq: int
    dead: Mapping[int, str]
    reached: frozenset[int]
    head: tuple[int, str] | None = None
    archives: tuple[Sealed, ...] | None = None

    @classmethod
    def read(cls, body: bytes, asked_pseq: int) -> "Answer":
        """Raises `ValueError`, `KeyError`, `TypeError` for anything else."""
        said = orjson.loads(body)
        pseq = int(said["pseq"])
        # A release before answered for the one number only, and told nothing of archives.
        reached = said.get("reached", [asked_pseq] if asked_pseq <= pseq else [])
        head, archives = said.get("head"), said.get("archives")
        return cls(
            pseq,
            {int(number): str(reason) for number, reason in said["dead"].items()},
            frozenset(reached),
            None if head is None else (int(head[0]), str(head[1])),
            None if archives is None else tuple(Sealed(**archive) for archive in archives),
        )


def _settle(waiting: Waiting, publisher: str, asked: Sequence[int], answer: Answer) -> None:
    for pseq in asked:
        if reason := answer.dead.get(pseq):
            waiting.settle(
                pseq,
                DeadLettered(f"event {pseq} of {publisher} is a dead letter ({reason}): see `relight deadletter list`"),
            )
        elif pseq in answer.reached:
            waiting.settle(pseq)
