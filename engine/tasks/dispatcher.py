"""Gives out the tasks of the queues that its region leads, and releases those whose owner is lost: a region's part."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import TypeAdapter, ValidationError

from relight.engine.errors import RelightError, TaskFenced
from relight.engine.log.following import Follower
from relight.engine.log.reader import TRANSIENT, Message
from relight.engine.policies.reassignment import LEASE_S, UNHELD_S, Claimant, Owner, lost
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import WORKER, Heartbeat
from relight.engine.regions.liveness import Liveness, Standing
from relight.engine.tasks.asking import WORK, Asking, Offer, Offers, Release, Waiter, Waiters, fenced_subject
from relight.engine.tasks.board import Board, Held, Key
from relight.engine.tasks.leading import Leading, RegionRouting
from relight.engine.tasks.replicating import Replicated
from relight.engine.tasks.rulings import Owned, TaskLog, state_of
from relight.events.catalog import decode_message, prepare
from relight.events.envelope import PLATFORM
from relight.events.errors import Undecodable
from relight.events.queues import QueueDeclared, QueueRuling
from relight.events.subjects import CONTROLS, token
from relight.events.tasks import ReleaseCause, TaskRuling, TaskStatus

RETRY_S = 0.5
LOOK_EVERY_S = 0.5
RELEASES_AT_ONCE = 32
HOLDS: TypeAdapter[list[tuple[str, str, int]]] = TypeAdapter(list[tuple[str, str, int]])
"""In a worker's heartbeat, as `held`: tenant, task and epoch of each task that it holds."""

log = logging.getLogger(__name__)


class Dispatcher:
    """Runs in the recorder's loop, for as long as that does. Several may run, in one region or in many: what each
    offers or releases is settled by compare-and-set, so that the others only waste a question.

    `weights`: how many tasks go in one turn of a tenant. Without `routing` its own region leads every queue.
    """

    def __init__(
        self,
        recorder: Recorder,
        heard: Heard,
        *,
        routing: RegionRouting | None = None,
        liveness: Liveness | None = None,
        weights: Mapping[str, int] | None = None,
        lease_s: float = LEASE_S,
        unheld_s: float = UNHELD_S,
    ) -> None:
        self._recorder = recorder
        self._region = recorder.options.region
        self._heard = heard
        self._liveness = liveness
        self._lease_s = lease_s
        self._unheld_s = unheld_s
        self._board = Board(weights)
        self._waiters = Waiters()
        self._tasks = TaskLog(recorder)
        self.leading = Leading(self._region, routing)
        self._replicated = Replicated(recorder, self.leading)
        self._releases: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._known = False
        self.failure: str | None = "the tasks were not read yet"
        """Why no tasks are given out now."""
        heard.on_heartbeat(self._on_heartbeat)
        if routing is not None:
            routing.on_change(self.wake)
        if liveness is not None:
            liveness.changed.append(lambda _kind, _name, _standing: self.wake())

    def task_count(self, queue: str) -> int | None:
        """Tasks of the queue that are not finished; None while that is not known."""
        return self._board.count(queue) if self._known else None

    def held_in(self, region: str) -> int | None:
        """Tasks that workers of that region hold: a source that holds none is drained; None while it is not known."""
        return self._board.held_in(region) if self._known else None

    def known(self) -> list[Key]:
        """Tenant and name of every task that is not finished, as far as it was read. For any thread."""
        return self._board.keys()

    def wake(self) -> None:
        """Something else than the stream changed: a region was isolated, the routing moved. In the recorder's loop."""
        self._woken.set()

    async def run(self) -> None:
        """For ever: whenever something may have been missed, all is read again."""
        await asyncio.to_thread(prepare)
        while True:
            try:
                await self._dispatch()
            except (RelightError, *TRANSIENT) as error:
                self._interrupted(error)
            except Exception as error:  # a daemon's edge: tasks wait, and health says why
                log.exception("tasks cannot be given out", extra={"action": "dispatching_failed"})
                self._interrupted(error)
            await asyncio.sleep(RETRY_S)

    def _interrupted(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if said != self.failure:
            log.info("tasks are not given out now: %s", said, extra={"action": "dispatching_retry"})
        self.failure, self._known = said, False

    async def _dispatch(self) -> None:
        client = await self._recorder.client()
        self._woken = asyncio.Event()
        self._board.clear()
        subjects = [f"{CONTROLS}.{TaskRuling.POLICY}.>", f"{CONTROLS}.{QueueDeclared.POLICY}.{token(PLATFORM)}.>"]
        asked = await client.subscribe(f"{WORK}.*", queue=f"dispatch.{token(self._region)}", cb=self._on_asking)
        try:
            async with Follower(client, subjects, since=None, arrived=self._woken.set) as follower:
                looked_s = self._time()
                while True:
                    self._woken.clear()
                    while (message := follower.take()) is not None:
                        self._fold(message)
                    if not follower.behind:
                        self.failure, self._known = None, True
                        await self._answer()
                        if self._time() - looked_s >= LOOK_EVERY_S:
                            looked_s = self._time()
                            self._board.withdraw(looked_s)
                            self._waiters.forget(looked_s)
                            self._look(client)
                            self._replicated.tell(looked_s)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._pause_s()):
                            await self._woken.wait()
        finally:
            for release in self._releases:
                release.cancel()
            if client.is_connected:
                with suppress(*TRANSIENT):
                    await asked.unsubscribe()

    def _fold(self, message: Message) -> None:
        try:
            event = decode_message(message.subject, message.body, message.timestamp_ms)
        except Undecodable as error:
            log.warning("message %d tells of no task: %s", message.seq, error, extra={"action": "undecodable"})
            return
        if isinstance(event.data, TaskRuling):
            self._board.fold(event, message.seq, self._listened_s())  # type: ignore[arg-type]  # its data is one
            if self._known and event.data.state is not None:
                self._replicated.saw(event.data.state.queue, message.timestamp_ms)
        elif isinstance(event.data, QueueRuling):
            self.leading.fold(event)  # type: ignore[arg-type]  # the same

    async def _on_asking(self, message: Msg) -> None:
        try:
            asking = Asking.model_validate_json(message.data)
        except ValidationError as error:
            log.info("a question for tasks cannot be read: %s", error, extra={"action": "asked_wrongly"})
            return
        self._waiters.add(asking, message, self._time())
        self._woken.set()

    async def _answer(self) -> None:
        """Offers what is due to whoever asks, one task each in turn."""
        now_s, now_us = self._time(), self._recorder.clock.now_us()
        for queue in self._waiters.queues():
            if not self.leading.gives(queue) or self._board.pool.next_due_us(queue, now_us) != now_us:
                continue
            waiting = list(self._waiters.of(queue, now_s))
            open_ = [waiter for waiter in waiting if self._may_work(waiter.asking)]
            while open_:
                open_ = [waiter for waiter in open_ if self._offer_one(waiter, now_us, now_s) and not waiter.full]
            for waiter in waiting:
                if waiter.offers:
                    self._waiters.answered(waiter)
                    await waiter.message.respond(Offers(offers=tuple(waiter.offers)).model_dump_json().encode())

    def _offer_one(self, waiter: Waiter, now_us: int, now_s: float) -> bool:
        asking = waiter.asking
        pending = self._board.offer(asking.queue, now_us, now_s, tenant=asking.tenant)
        if pending is None:
            return False
        waiter.offers.append(Offer(tenant=pending.tenant, task=pending.task, seq=pending.seq))
        return True

    def _may_work(self, asking: Asking) -> bool:
        standing = None if self._liveness is None else self._liveness.worker(asking.worker)
        return standing in (None, Standing.ALIVE, Standing.UNKNOWN) and self.leading.takes_work(asking.region)

    def _on_heartbeat(self, beat: Heartbeat) -> None:
        if beat.kind != WORKER:
            return
        try:
            held = HOLDS.validate_python(beat.fields["held"])
        except (KeyError, ValidationError):
            return  # one that holds more than fits says that it lives, and no more
        self._board.heard(beat.id, {(tenant, task): epoch for tenant, task, epoch in held}, self._listened_s())

    def _look(self, client: Client) -> None:
        """Releases what lost owners held."""
        now_s = self._listened_s()
        for name, tasks in self._board.owners():
            for key, held in tasks:
                if len(self._releases) >= RELEASES_AT_ONCE:
                    return
                if held.releasing or not self.leading.leads(held.queue):
                    continue
                if (why := self._lost(name, held, now_s)) is not None:
                    held.releasing = True
                    releasing = self._release(client, key, held, *why)
                    release = asyncio.create_task(releasing, name=f"release of task {key[1]}")
                    self._releases.add(release)
                    release.add_done_callback(self._released)

    def _released(self, release: "asyncio.Task[None]") -> None:
        self._releases.discard(release)
        self._woken.set()

    def _lost(self, name: str, held: Held, now_s: float) -> tuple[ReleaseCause, str] | None:
        return lost(self._owner(name, held, now_s), lease_s=self._lease_s, unheld_s=self._unheld_s)

    def _owner(self, name: str, held: Held, now_s: float) -> Owner:
        silent_ms, since_s = self._heard.silent_ms(WORKER, name), now_s - held.since_s
        unheld_s = 0.0 if held.unheld_since_s is None else now_s - held.unheld_since_s
        beat, live = self._heard.last(WORKER, name), self._liveness
        return Owner(
            held.who,
            silent_s=since_s if silent_ms is None else min(since_s, silent_ms / 1_000),
            unheld_s=min(since_s, unheld_s),
            left=beat is not None and beat.leaving,
            isolated=live is not None and live.worker(name) is Standing.ISOLATED,
            region_isolated=live is not None and live.region(held.who.region) is Standing.ISOLATED,
        )

    async def _release(self, client: Client, key: Key, held: Held, cause: ReleaseCause, reason: str) -> None:
        tenant, task = key
        try:
            tail = await self._tasks.tail(tenant, task)
            state = state_of(tail)
            if state is None or state.status is not TaskStatus.ASSIGNED or state.epoch != held.epoch:
                return  # it was faster, or another dispatcher
            if Claimant(state.owner or "", state.owner_region or "") != held.who:
                return
            owned = Owned(tenant=tenant, task=task, tail=tail, state=state, epoch=held.epoch)
            await self._tasks.release(owned, cause, reason)
            log.info("task %s of %s is released: %s", task, tenant, reason, extra={"action": "task_released"})
            told = Release(tenant=tenant, task=task, epoch=held.epoch)
            await client.publish(fenced_subject(held.who.owner), told.model_dump_json().encode())
        except TaskFenced:
            pass
        except (RelightError, *TRANSIENT) as error:
            log.info("task %s is not released: %s", task, error, extra={"action": "release_failed"})
        finally:
            held.releasing = False

    def _pause_s(self) -> float:
        """Until the next task is due that somebody waits for."""
        now_us = self._recorder.clock.now_us()
        due = [
            (due_us - now_us) / 1_000_000
            for queue in self._waiters.queues()
            if self.leading.gives(queue) and (due_us := self._board.pool.next_due_us(queue, now_us)) is not None
        ]
        # What is due and yet not offered waits for workers that are let work: those are looked at again in a while.
        return min([LOOK_EVERY_S, *(one for one in due if one > 0)])

    def _listened_s(self) -> float:
        """Stands while no heartbeat can be heard: nobody is silent meanwhile."""
        return self._heard.listened_us() / 1_000_000

    def _time(self) -> float:
        return asyncio.get_running_loop().time()


def holds(tasks: Mapping[Key, int]) -> list[list[str | int]]:
    """What a worker says of its tasks, as `HOLDS` reads it."""
    return [[tenant, task, epoch] for (tenant, task), epoch in tasks.items()]
