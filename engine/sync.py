"""`Relight` for code without an event loop: the same object, its waiting calls run in a loop of their own."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from anyio.from_thread import BlockingPortal
from pydantic import JsonValue

from relight.engine import scope
from relight.engine.decision import Decision
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.breakers.tool import Counted, ToolBreaker
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.budgets.estimates import PriceList
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.process_health import ProcessHealth
from relight.engine.guard.recording.content import Redact
from relight.engine.log.control import Tail
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.policies.budget import Limit
from relight.engine.policies.reassignment import MAX_ATTEMPTS
from relight.engine.recorder.receipts import Receipt
from relight.engine.recorder.recorder import Recorder
from relight.engine.runtime import Relight
from relight.engine.tasks.submitting import Submitted
from relight.events.base import Control, Event
from relight.events.values import Content
from relight.projections.query import DEFAULT_LIMIT, Row

if TYPE_CHECKING:
    from relight.engine.guard.routes.fallback import Fallback

ClientT = TypeVar("ClientT")


class SyncRelight:
    """As `Relight`; decisions are used with a plain `with`, receipts with `wait()`."""

    def __init__(self, relight: Relight, portal: BlockingPortal) -> None:
        self._relight = relight
        self._portal = portal

    @property
    def recorder(self) -> Recorder:
        return self._relight.recorder

    @property
    def region(self) -> str:
        return self._relight.region

    @property
    def tenant(self) -> str:
        return self._relight.tenant

    def record(self, event: Event) -> Receipt:
        return self._relight.record(event)

    def mark(self) -> Receipt:
        return self._relight.mark()

    def content(self, body: bytes) -> Content:
        return self._relight.content(body)

    def fetch(self, content: Content, *, tenant: str | None = None) -> bytes:
        return self._portal.call(partial(self._relight.fetch, content, tenant=tenant))

    def scope(
        self,
        *,
        tenant: str | None = None,
        agent: str | None = None,
        task: str | None = None,
        correlation: str | None = None,
        traceparent: str | None = None,
    ) -> AbstractContextManager[scope.Scope]:
        return self._relight.scope(
            tenant=tenant, agent=agent, task=task, correlation=correlation, traceparent=traceparent
        )

    def decision(
        self, decision_type: str, *, context: dict[str, JsonValue] | None = None, decision: str | None = None
    ) -> Decision:
        return self._relight.decision(decision_type, context=context, decision=decision)

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
        return self._relight.guarded(
            client,
            policy,
            provider=provider,
            region=region,
            fallbacks=fallbacks,
            budgets=budgets,
            redact=redact,
        )

    def budgets(self, limits: Sequence[Limit] | Path | str, *, prices: PriceList | None = None) -> Budgets:
        async def made() -> Budgets:
            return self._relight.budgets(limits, prices=prices)

        return self._portal.call(made)

    @property
    def breakers(self) -> Breakers:
        return self._relight.breakers

    def breaker(
        self,
        name: str,
        *,
        counts: Counted = Exception,
        ignores: Counted = (),
        policy: BreakerPolicy | None = None,
    ) -> ToolBreaker:
        return self._relight.breaker(name, counts=counts, ignores=ignores, policy=policy)

    def submit(
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
        submit = partial(
            self._relight.submit,
            queue,
            payload,
            task=task,
            priority=priority,
            delay_s=delay_s,
            max_attempts=max_attempts,
            tenant=tenant or scope.current().tenant,
        )
        return self._portal.call(submit)

    def health(self) -> ProcessHealth:
        return self._relight.health()

    def tail(self, kind: type[Control], entity: str, *, tenant: str | None = None) -> Tail:
        return self._portal.call(partial(self._relight.tail, kind, entity, tenant=tenant))

    def rule(
        self, event: Control, *, after: Tail, policy_version: str, observed_seq: int = 0, tenant: str | None = None
    ) -> Tail:
        return self._portal.call(
            partial(
                self._relight.rule,
                event,
                after=after,
                policy_version=policy_version,
                observed_seq=observed_seq,
                tenant=tenant,
            )
        )

    def query(
        self,
        name: str,
        *,
        after: Receipt | Tail | None = None,
        tenant: str | None = None,
        limit: int = DEFAULT_LIMIT,
        timeout_s: float | None = None,
        **arguments: object,
    ) -> list[Row]:
        ask = partial(
            self._relight.query,
            name,
            after=after,
            tenant=tenant,
            limit=limit,
            timeout_s=timeout_s,
            **arguments,
        )
        return self._portal.call(ask)
