"""What `relight.open` gives: record, decide, rule and query, as one process of one region."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import JsonValue

from relight.engine import scope
from relight.engine.decision import Decision
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.breakers.tool import Counted, ToolBreaker
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.budgets.estimates import PriceList
from relight.engine.guard.budgets.limits import load_limits
from relight.engine.guard.budgets.spent_elsewhere import SpentElsewhere
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.process_health import ProcessHealth, process_health
from relight.engine.guard.recording.content import Redact
from relight.engine.guard.recording.prices import Prices
from relight.engine.log.content import fetch_content
from relight.engine.log.control import Tail
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.policies.budget import Limit
from relight.engine.policies.reassignment import BACKOFF_S, MAX_ATTEMPTS
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.pools import Pool
from relight.engine.tables.queries import find, parse, run
from relight.engine.tasks.submitting import Submitted, Submitter
from relight.engine.tasks.worker import DRAIN_S, Worker
from relight.engine.tasks.working import HandlerT, Working
from relight.events.base import Control, Event
from relight.events.values import Content
from relight.projections.query import DEFAULT_LIMIT, Row

if TYPE_CHECKING:
    from relight.engine.guard.routes.fallback import Fallback

T = TypeVar("T")
ClientT = TypeVar("ClientT")


class Relight:
    """One process of one region; `relight.open` makes it, and everything in it ends with that `with`."""

    def __init__(
        self,
        recorder: Recorder,
        pool: Pool,
        *,
        region: str,
        tenant: str,
        prices: PriceList | None = None,
        beside: "set[asyncio.Task[None]] | None" = None,
        dispatches: bool = False,
    ) -> None:
        """`beside`: takes what runs beside it, to be ended by whoever made it.

        `dispatches`: no service does, so that tasks are given out here while this process works.
        """
        self.recorder = recorder
        self.region = region
        self.tenant = tenant
        self._pool = pool
        self._prices = prices
        self._beside = set() if beside is None else beside
        self._working = Working(recorder, dispatches=dispatches)
        self._submitter = Submitter(recorder)

    def record(self, event: Event) -> Receipt:
        """Takes an observation; microseconds, never blocks. Raises `InvalidEvent` for what cannot be recorded."""
        return self.recorder.record(event)

    def mark(self) -> Receipt:
        """Of all that was recorded until now, by guards and breakers too: `query(…, after=r.mark())` shows it."""
        return self.recorder.mark()

    def content(self, body: bytes) -> Content:
        """Keeps bytes beside the events; an event holds what is returned."""
        return self.recorder.content(body)

    async def fetch(self, content: Content, *, tenant: str | None = None) -> bytes:
        """The bytes again. Raises `ContentError` when they are missing or do not match their digest."""
        owner = tenant or self._tenant()
        return await self._in_log(self.recorder.with_jetstream(lambda js: fetch_content(js, owner, content)))

    def scope(
        self,
        *,
        tenant: str | None = None,
        agent: str | None = None,
        task: str | None = None,
        correlation: str | None = None,
        traceparent: str | None = None,
    ) -> AbstractContextManager[scope.Scope]:
        """Who is acting, for whatever is recorded inside; nested scopes inherit, and so do tasks started inside."""
        here = scope.current()
        correlation = correlation or here.correlation or self.recorder.clock.next_id()
        return scope.entered(tenant=tenant, agent=agent, task=task, correlation=correlation, traceparent=traceparent)

    def decision(
        self, decision_type: str, *, context: dict[str, JsonValue] | None = None, decision: str | None = None
    ) -> Decision:
        """A decision to be made inside its `with`; `decision` names it, else it gets an id."""
        return Decision(self.recorder, decision_type, context=context, decision=decision)

    def guarded(
        self,
        client: ClientT,
        policy: GuardPolicy | None = None,
        *,
        provider: str | None = None,
        region: str | None = None,
        fallbacks: "Sequence[Fallback]" = (),
        budgets: Budgets | None = None,
        redact: Sequence[Redact] = (),
    ) -> ClientT:
        """A client of the same type whose calls are retried, broken and recorded; see `relight.guarded`."""
        from relight.engine.guard.guarded import guarded  # the SDK takes a second to import

        return guarded(
            client,
            self,
            policy,
            provider=provider,
            region=region,
            fallbacks=fallbacks,
            budgets=budgets,
            redact=redact,
        )

    def budgets(self, limits: Sequence[Limit] | Path | str, *, prices: PriceList | None = None) -> Budgets:
        """Limits, or a TOML file of them, for `guarded(client, budgets=…)`; in the loop that this was opened in.

        It learns from the tables what other processes spend, as long as this one is open. Raises `SettingsError`.
        """
        found = load_limits(Path(limits)) if isinstance(limits, Path | str) else limits
        budgets = Budgets(found, prices=prices or self._prices or Prices.load())
        elsewhere = SpentElsewhere(budgets, self.query, clock=self.recorder.clock)
        self._beside.add(asyncio.get_running_loop().create_task(elsewhere.run(), name="budgets"))
        return budgets

    @property
    def breakers(self) -> Breakers:
        """Of everything in this process that is guarded; `breakers.health()` lists those that are not closed."""
        return Breakers.beside(self.recorder)

    def breaker(
        self,
        name: str,
        *,
        counts: Counted = Exception,
        ignores: Counted = (),
        policy: BreakerPolicy | None = None,
    ) -> ToolBreaker:
        """A breaker around a dependency of yours: a decorator, `with` and `async with`. Raises `CircuitOpen`.

        `counts`: which exceptions say that the dependency failed; `ignores`: which of those do not. `policy` counts
        where the breaker is named for the first time in this process.
        """
        return ToolBreaker(self.breakers, name, counts=counts, ignores=ignores, policy=policy)

    async def submit(
        self,
        queue: str,
        payload: bytes | JsonValue = None,
        *,
        task: str | None = None,
        priority: int = 0,
        delay_s: float = 0,
        max_attempts: int = MAX_ATTEMPTS,
        tenant: str | None = None,
    ) -> Submitted:
        """A task for whoever works on the queue; durable once this returns. Raises `TaskRefused`, `Unreachable`.

        `task` names it, else it gets an id: submitting the same name again changes nothing, and gives what stands
        there. Of a tenant's tasks that are due the highest `priority` goes first. After `max_attempts` it is given up.
        """
        submitting = self._submitter.submit(
            queue,
            payload,
            tenant=tenant or self._tenant(),
            task=task,
            priority=priority,
            delay_s=delay_s,
            max_attempts=max_attempts,
        )
        return await self._in_log(submitting)

    def worker(
        self,
        queue: str,
        *,
        concurrency: int = 1,
        retries: int | None = None,
        backoff_s: float = BACKOFF_S,
        tenant: str | None = None,
        agent: str | None = None,
    ) -> Callable[[HandlerT], HandlerT]:
        """Decorates `async def work(task)`, which `working()` runs on this queue's tasks; its result is the task's.

        An exception is a failed attempt: tried again after `backoff_s`, twice as long each time, `retries` times at
        most and as often as the task allows. `tenant`: only that one's tasks. `agent`: who acts; the worker's id.
        """
        return self._working.register(
            queue, concurrency=concurrency, retries=retries, backoff_s=backoff_s, tenant=tenant, agent=agent
        )

    def working(self, *, drain_s: float = DRAIN_S) -> AbstractAsyncContextManager[Worker]:
        """Works on tasks until the `with` ends; what runs then may end within `drain_s`, and is given back else."""
        return self._working.working(drain_s=drain_s)

    async def work(self, *, drain_s: float = DRAIN_S) -> None:
        """`working` until it is cancelled."""
        await self._working.work(drain_s=drain_s)

    def health(self) -> ProcessHealth:
        """How recording and guarding go in this process; its `warnings` say what is wrong, a sentence each."""
        return process_health(self.recorder)

    async def tail(self, kind: type[Control], entity: str, *, tenant: str | None = None) -> Tail:
        """The last ruling on this entity, to fold and to append after."""
        owner = tenant or self._tenant()
        return await self._in_log(self.recorder.with_control(lambda log: log.tail(kind, tenant=owner, entity=entity)))

    async def rule(
        self, event: Control, *, after: Tail, policy_version: str, observed_seq: int = 0, tenant: str | None = None
    ) -> Tail:
        """Appends a ruling if nothing came after `after`. Raises `Superseded` when another writer was first."""
        owner = tenant or self._tenant()
        return await self._in_log(
            self.recorder.with_control(
                lambda log: log.append(
                    event, after=after, tenant=owner, policy_version=policy_version, observed_seq=observed_seq
                )
            )
        )

    async def query(
        self,
        name: str,
        *,
        after: Receipt | Tail | None = None,
        tenant: str | None = None,
        limit: int = DEFAULT_LIMIT,
        timeout_s: float | None = None,
        **arguments: object,
    ) -> list[Row]:
        """A declared query's rows, under the tenant of the scope; `relight query` lists them.

        `after`: waits until that event is in the tables, so that one reads one's own writes.
        Raises `QueryError`, `AckTimeout`, `DeadLettered`, `Unreachable`.
        """
        query = find(name)
        parse(query, arguments)
        match after:
            case Receipt():
                await after.reached(Ack.PROJECTED, timeout_s=timeout_s)
            case Tail():
                await self.recorder.ruling_projected(after, timeout_s=timeout_s)
            case None:
                pass
        return await run(self._pool, query, tenant=tenant or self._tenant(), arguments=arguments, limit=limit)

    def _tenant(self) -> str:
        return scope.current().tenant or self.tenant

    async def _in_log(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = self.recorder.in_loop(coroutine)
        result: T = await asyncio.wrap_future(future)
        return result
