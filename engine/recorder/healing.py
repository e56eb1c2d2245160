"""A recorder's part in healing: what it has and the stream lacks is published again, when asked and by itself."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError
from pydantic import ValidationError

from relight.engine.clock import Clock
from relight.engine.errors import RecorderError
from relight.engine.log.answers import answered
from relight.engine.log.links import document_of
from relight.engine.log.numbers import MOST, Numbers
from relight.engine.log.publishing import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from relight.engine.log.putting_back import lacking, put_back, put_back_rulings, spooled
from relight.engine.log.reader import TRANSIENT, Message
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.engine.recorder.heal_messages import HERE, MISSING, Lost, Report, Request
from relight.engine.spool.held import Held, PutBack
from relight.engine.spool.idle import idle
from relight.engine.spool.slots import Slot
from relight.events.base import Event
from relight.events.recorder import RecorderHealed
from relight.events.subjects import CONTROLS, OBSERVATIONS

TRIMS = f"{OBSERVATIONS}.*.recorder.*.trimmed"
"""The subjects of `recorder.trimmed`."""
MAX_WAITING = 1_000
LOOK_EVERY_S = 1.0


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holding:
    """A spool at hand; `write` has a job done by whoever may write to it."""

    publisher: str
    held: Held
    write: Callable[[Callable[[Held], None]], Awaitable[None]]


class Mender:
    """Of one recorder: its own spool, and those of its home that no live process holds.

    Whoever asks is trusted with nothing: what is published is what was recorded here, and only where it does not stand.
    """

    def __init__(
        self,
        client: Client,
        own: Holding,
        *,
        spools: Path | None,
        record: Callable[[Event], object] | None,
        clock: Clock,
    ) -> None:
        self._client = client
        self._js = client.jetstream(timeout=REQUEST_TIMEOUT_S)
        self._own = own
        self._spools = spools
        self._record = record
        self._clock = clock
        self._asked: asyncio.Queue[Msg | None] = asyncio.Queue(MAX_WAITING)
        self._looked_after = -1
        self._trimmed_seq = 0
        self._was_here = self._waits = self._others_healed = False

    async def run(self) -> None:
        """Until cancelled."""
        subscriptions = [
            await self._client.subscribe(MISSING, cb=self._take),
            await self._client.subscribe(HERE, cb=self._somebody_is_here),
        ]
        try:
            while True:
                try:
                    await self._look_after_tails()
                    await self._next()
                except Exception as error:  # a daemon's edge: healing must not end the draining beside it
                    expected = isinstance(error, (*TRANSIENT, RecorderError))
                    log.log(
                        logging.INFO if expected else logging.ERROR,
                        "not healed for now: %r",
                        error,
                        extra={"action": "heal_retry"},
                    )
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for subscription in subscriptions:
                with suppress(*TRANSIENT):
                    await subscription.unsubscribe()

    async def _look_after_tails(self) -> None:
        """After connecting: whether what was acknowledged last still stands; puts back what a rewind has taken.

        What was lost further back shows in the tables, or in an audit.
        """
        reconnects = self._client.stats["reconnects"]
        again = self._waits and self._others_healed
        if not self._client.is_connected or (reconnects == self._looked_after and not again):
            return
        healed, self._waits, self._others_healed = 0, False, False
        self._trimmed_seq = await self._trimmed_through()
        async with aclosing(self._holdings()) as holdings:
            async for holding in holdings:
                if tail := await self._lost_tail(holding.held):
                    healed += await self._say(holding.publisher, await self._heal_events(holding, Numbers([tail])))
                healed += await self._look_after_rulings(holding)
        self._looked_after = reconnects
        if healed or not self._was_here:
            await self._client.publish(HERE, self._own.publisher.encode())
            self._was_here = True

    async def _look_after_rulings(self, holding: Holding) -> int:
        """Puts back lost rulings that follow what stands now; others wait for those between, which others may have."""
        newest, healed = holding.held.newest_copy(), 0
        if newest is None or newest.seq <= self._trimmed_seq:
            return 0
        if not await lacking(self._client, self._js, [(newest.seq, spooled(newest))]):
            return 0
        for subject in holding.held.subjects():
            copies = holding.held.copies(subject, 1, MOST)
            copies = [copy for copy in copies if copy.seq > self._trimmed_seq]
            gone = await lacking(self._client, self._js, [(copy.seq, spooled(copy)) for copy in copies])
            if gone:
                run = next(iter(Numbers((event.pseq, event.pseq) for event in gone)))
                last = run[1] if run[0] == 1 else MOST
                done = await self._heal_rulings(holding, subject, Numbers([run]), newest=last, patient=True)
                healed += await self._say(subject, done)
                self._waits = self._waits or done.count < len(gone)
        return healed

    async def _somebody_is_here(self, message: Msg) -> None:
        if message.data != self._own.publisher.encode():
            self._others_healed = True
            if self._waits and not self._asked.full():
                self._asked.put_nowait(None)

    async def _take(self, message: Msg) -> None:
        if not self._asked.full():  # asked again later
            self._asked.put_nowait(message)

    async def _next(self) -> None:
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                message = await self._asked.get()
        except TimeoutError:
            return
        if message is None:
            return  # only to look again
        try:
            request = Request.model_validate_json(message.data)
        except ValidationError as error:
            log.warning("no request to heal: %s", error, extra={"action": "heal_refused"})
            return
        await self._answer(message, request)

    async def _answer(self, message: Msg, request: Request) -> None:
        healed: dict[str, Numbers] = {}
        said = False
        async with aclosing(self._holdings()) as holdings:
            async for holding in holdings:
                for publisher, lost in _held(holding, request):
                    if not said:
                        said = True
                        await self._report(message, Report(recorder=self._own.publisher, done=False))
                    if publisher.startswith(f"{CONTROLS}."):
                        done = await self._heal_rulings(
                            holding, publisher, lost, newest=lost.highest, patient=request.patient
                        )
                    else:
                        done = await self._heal_events(holding, lost)
                    healed[publisher] = healed.get(publisher, Numbers()).union(done)
        if said:
            runs = tuple(Lost(publisher=publisher, runs=tuple(numbers)) for publisher, numbers in healed.items())
            await self._report(message, Report(recorder=self._own.publisher, healed=runs, done=True))

    async def _report(self, message: Msg, report: Report) -> None:
        if message.reply:
            await self._client.publish(message.reply, report.model_dump_json().encode())

    async def _say(self, publisher: str, healed: Numbers) -> int:
        for first, last in healed:
            log.warning(
                "healed %s %d-%d, which the stream had lost", publisher, first, last, extra={"action": "healed"}
            )
            if self._record is not None:
                self._record(
                    RecorderHealed(publisher=publisher, first_pseq=first, events=last - first + 1, source="spool")
                )
        return healed.count

    async def _heal_events(self, holding: Holding, lost: Numbers) -> Numbers:
        healed = Numbers()
        for events in holding.held.batches(lost, MAX_BATCH_EVENTS, MAX_BATCH_BYTES):
            places = holding.held.places([event.pseq for event in events])
            gone = await lacking(self._client, self._js, [(places.get(event.pseq), event) for event in events])
            done: list[PutBack] = []
            try:
                async for more in put_back(self._client, self._js, gone, now_ms=self._clock.now_us() // 1_000):
                    done.append(more)  # noqa: PERF401  # what came before an error is noted, too
            finally:
                if done:
                    await holding.write(lambda held, done=done: held.note_events(done))  # type: ignore[misc]
            healed = healed.union(Numbers((more.first_pseq, more.last_pseq) for more in done))
        return healed

    async def _heal_rulings(
        self, holding: Holding, subject: str, lost: Numbers, *, newest: int, patient: bool
    ) -> Numbers:
        copies = [copy for run in lost for copy in holding.held.copies(subject, *run)]
        gone = {
            event.id for event in await lacking(self._client, self._js, [(copy.seq, spooled(copy)) for copy in copies])
        }
        lacked = [copy for copy in copies if copy.id in gone]
        moved = await put_back_rulings(self._client, self._js, lacked, newest=newest, patient=patient)
        if moved:
            await holding.write(lambda held: held.note_copies(moved))
        return Numbers((copy.rev, copy.rev) for copy in moved)

    async def _lost_tail(self, held: Held) -> tuple[int, int] | None:
        """The numbers at the end of what was acknowledged that may not stand any more."""
        tails = held.tails()
        if not tails or await self._stands(held, tails[-1]) is not False:
            return None
        low, high = 0, len(tails) - 1  # tails[high] is gone; what a rewind left is the beginning
        while low < high:
            middle = (low + high) // 2
            if await self._stands(held, tails[middle]) is not False:
                low = middle + 1
            else:
                high = middle
        return (tails[low - 1] + 1 if low else 1), tails[-1]

    async def _stands(self, held: Held, pseq: int) -> bool | None:
        """None: that cannot be told, for its bytes are not here any more, or it was trimmed."""
        events, place = held.events(pseq, pseq, 1, 1), held.places([pseq]).get(pseq, 0)
        if not events or place <= self._trimmed_seq:
            return None
        return not await lacking(self._client, self._js, [(place, events[0])])

    async def _trimmed_through(self) -> int:
        """What stood up to there was taken off the stream on purpose; 0 where nobody said so."""
        asking = self._js.get_last_msg(STREAM, TRIMS)
        try:
            found = await answered(self._client, asking, within_s=REQUEST_TIMEOUT_S + 1)
        except NotFoundError:
            return 0
        match document_of(Message(0, 0, found.subject or "", found.data or b"")):
            case {"data": {"through_seq": int(through_seq)}}:
                return through_seq
        return 0

    async def _holdings(self) -> AsyncGenerator[Holding, None]:
        yield self._own
        if self._spools is not None and self._spools.is_dir():
            for slot in idle(self._spools):
                try:
                    yield Holding(slot.publisher, Held(slot.spool), _directly(slot))
                finally:
                    slot.close()


def _directly(slot: Slot) -> Callable[[Callable[[Held], None]], Awaitable[None]]:
    async def write(job: Callable[[Held], None]) -> None:
        job(Held(slot.spool))

    return write


def _held(holding: Holding, request: Request) -> list[tuple[str, Numbers]]:
    """What of a request this spool has anything of."""
    found = []
    for lost in request.missing:
        numbers = Numbers(lost.runs)
        if lost.publisher.startswith(f"{CONTROLS}."):
            held = any(holding.held.copies(lost.publisher, *run) for run in numbers)
        else:
            held = lost.publisher == holding.publisher and any(holding.held.events(*run, 1, 1) for run in numbers)
        if held:
            found.append((lost.publisher, numbers))
    return found
