"""Gives each queue to the region that has to lead it, as the routing changes; of racing regions one does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from nats.aio.client import Client

from relight.engine import scope
from relight.engine.errors import RelightError, Superseded
from relight.engine.log.chain import body_sha256
from relight.engine.log.control import ControlLog, Tail
from relight.engine.log.following import Follower
from relight.engine.log.reader import TRANSIENT, Message
from relight.engine.policies.federation import QueueState, due_handover, observe_queue
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.routing import RoutingTable
from relight.engine.regions.turns import Turns
from relight.events.catalog import decode_message
from relight.events.envelope import PLATFORM
from relight.events.errors import Undecodable
from relight.events.queues import QueueDeclared, QueueHandover
from relight.events.subjects import CONTROLS, token

POLICY = "federation-1"
RETRY_S = 0.5
LOOK_EVERY_S = 0.5
RULING_S = 5.0
Waiting = Callable[[str], Awaitable[int | None]]
"""How many tasks wait in a queue, where that is known."""

log = logging.getLogger(__name__)


async def nobody_knows(queue: str) -> int | None:
    """Where nobody counts."""
    return None


class MovingQueues:
    """A part of a region's service; `run` in the recorder's loop."""

    def __init__(
        self, recorder: Recorder, table: RoutingTable, *, region: str, waiting: Waiting = nobody_knows
    ) -> None:
        self.failure: str | None = "the queues were not read yet"
        self._recorder = recorder
        self._table = table
        self._waiting = waiting
        self._turns = Turns(table, region)
        self._queues: dict[str, tuple[QueueState, Tail]] = {}
        self._woken = asyncio.Event()
        table.on_change(lambda: self._woken.set())

    @property
    def queues(self) -> dict[str, QueueState]:
        """Every queue by name, as its last ruling leaves it."""
        return {name: state for name, (state, _) in list(self._queues.items())}

    async def run(self) -> None:
        """For ever: whenever something may have been missed, all is read again."""
        self._woken = asyncio.Event()
        while True:
            try:
                await self._follow(await self._recorder.client())
            except (RelightError, *TRANSIENT) as error:
                self.failure = str(error) or type(error).__name__
            except Exception as error:  # a daemon's edge: queues stay where they are, and health says why
                log.exception("queues cannot be moved", extra={"action": "moving_queues_failed"})
                self.failure = str(error) or type(error).__name__
            await asyncio.sleep(RETRY_S)

    async def _follow(self, client: Client) -> None:
        subject = f"{CONTROLS}.{QueueDeclared.POLICY}.{token(PLATFORM)}.>"
        async with Follower(client, [subject], since=None, arrived=self._woken.set) as follower:
            while True:
                self._woken.clear()
                while (message := follower.take()) is not None:
                    self._fold(message)
                if not follower.behind:
                    self.failure = None
                    await self._rule(follower.position)
                try:
                    async with asyncio.timeout(self._turns.pause_s(LOOK_EVERY_S)):
                        await self._woken.wait()
                except TimeoutError:
                    continue

    def _fold(self, message: Message) -> None:
        try:
            event = decode_message(message.subject, message.body, message.timestamp_ms)
        except Undecodable as error:
            log.warning("ruling %d on a queue is passed over: %s", message.seq, error, extra={"action": "undecodable"})
            return
        name = event.subject
        state = observe_queue(self._queues[name][0] if name in self._queues else None, event)
        if state is not None and state.event_id == event.id:
            tail = Tail(
                subject=message.subject,
                seq=message.seq,
                rev=state.rev,
                sha256=body_sha256(message.body),
                event=event,
            )
            self._queues[name] = (state, tail)

    async def _rule(self, position: int) -> None:
        routing = self._table.routing
        if routing is None:
            return
        due = [name for name, (state, _) in self._queues.items() if due_handover(state, routing, None) is not None]
        if not self._turns.is_ours(tuple(due) or None):
            return
        for name in due:
            state, tail = self._queues[name]
            ruling = due_handover(state, routing, await self._waiting(name))
            if ruling is None:
                continue

            cause = self._table.state.event_id
            try:
                with scope.entered(tenant=PLATFORM, causation=cause):
                    await self._recorder.with_control(partial(_append, ruling=ruling, tail=tail, position=position))
            except Superseded as error:
                log.debug("%s", error, extra={"action": "ruling_superseded"})


async def _append(control: ControlLog, *, ruling: QueueHandover, tail: Tail, position: int) -> Tail:
    return await control.append(
        ruling, after=tail, tenant=PLATFORM, policy_version=POLICY, observed_seq=position, timeout_s=RULING_S
    )
