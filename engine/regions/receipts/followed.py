"""Which failovers of a fleet left a receipt that is not closed, as the log says."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from nats.aio.client import Client

from relight.engine.errors import RelightError
from relight.engine.log.following import Follower
from relight.engine.log.reader import TRANSIENT, Message
from relight.engine.recorder.recorder import Recorder
from relight.events.catalog import decode
from relight.events.envelope import PLATFORM
from relight.events.errors import Undecodable
from relight.events.failover import FailoverCompleted, FailoverReceiptClosed, FleetDeclared
from relight.events.subjects import CONTROLS, control_subject, token
from relight.events.values import Content

RETRY_S = 0.5
LOOK_EVERY_S = 0.5
BEGINNING = datetime(1970, 1, 2, tzinfo=UTC)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A failover that left a receipt; `closed` by what."""

    failover: str
    fleet: str
    source_region: str
    target_region: str
    completed_at: datetime
    receipt: Content
    closed: FailoverReceiptClosed | None = None


class Receipts:
    """Of one fleet; `run` follows in the recorder's loop. All else may be read from any thread."""

    def __init__(self, recorder: Recorder, fleet: str) -> None:
        assert FleetDeclared.POLICY is not None
        assert FailoverReceiptClosed.POLICY is not None
        self.fleet = fleet
        self.failure: str | None = "receipts were not read yet"
        self.changed = asyncio.Event()
        """Set with each that is opened or closed; in the recorder's loop."""
        self._recorder = recorder
        self._subjects = [
            control_subject(FleetDeclared.POLICY, PLATFORM, fleet),
            f"{CONTROLS}.{token(FailoverReceiptClosed.POLICY)}.{token(PLATFORM)}.*",
        ]
        self._completed: dict[str, Completed] = {}
        self._closed: dict[str, FailoverReceiptClosed] = {}

    @property
    def all(self) -> Mapping[str, Completed]:
        """By failover, the earliest first."""
        return dict(self._completed)

    @property
    def open(self) -> tuple[Completed, ...]:
        return tuple(one for one in list(self._completed.values()) if one.closed is None)

    async def run(self) -> None:
        """For ever: whenever something may have been missed, all is read again."""
        while True:
            try:
                await self._follow(await self._recorder.client(), forever=True)
            except (RelightError, *TRANSIENT) as error:
                self.failure = str(error) or type(error).__name__
            except Exception as error:  # a daemon's edge: health says why
                log.exception(
                    "receipts of fleet %s cannot be followed", self.fleet, extra={"action": "receipts_failed"}
                )
                self.failure = str(error) or type(error).__name__
            await asyncio.sleep(RETRY_S)

    async def read(self) -> None:
        """All that there are now. Raises what the log raises."""
        await self._follow(await self._recorder.client(), forever=False)

    async def _follow(self, client: Client, *, forever: bool) -> None:
        woken = asyncio.Event()
        async with Follower(client, self._subjects, since=BEGINNING, arrived=woken.set) as follower:
            while True:
                woken.clear()
                while (message := follower.take()) is not None:
                    self._fold(message)
                if not follower.behind:
                    self.failure = None
                    if not forever:
                        return
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await woken.wait()
                except TimeoutError:
                    continue

    def _fold(self, message: Message) -> None:
        try:
            event = decode(message.body)
        except Undecodable:
            return  # a ruling of a newer release: who follows the routing says so
        match event.data:
            case FailoverCompleted(failover=str(failover), receipt=Content() as receipt) as data:
                self._completed[failover] = Completed(
                    failover=failover,
                    fleet=data.fleet,
                    source_region=data.source_region,
                    target_region=data.target_region,
                    completed_at=event.time,
                    receipt=receipt,
                    closed=self._closed.get(failover),
                )
            case FailoverReceiptClosed() as data:
                self._closed[data.failover] = data
                if (known := self._completed.get(data.failover)) is not None:
                    self._completed[data.failover] = replace(known, closed=data)
            case _:
                return
        self.changed.set()
