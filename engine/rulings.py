"""Rulings from outside: appended by compare-and-set after the revision that their sender decided upon."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from relight.engine import scope
from relight.engine.errors import AckNotProven, AckTimeout, Superseded
from relight.engine.ingest import IncomingRuling, checked
from relight.engine.log.control import ControlLog, Tail
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.events.base import Control

T = TypeVar("T")


class Ruled(BaseModel):
    """A ruling that won: its id, the receipt to wait for, its revision and where it stands on the stream."""

    id: str
    receipt: str
    ack: Ack
    rev: int
    seq: int


class Rulings:
    """Appends through one recorder's control log."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def append(
        self, document: object, *, tenant: str, ack: Ack = Ack.REPLICATED, timeout_s: float | None = None
    ) -> Ruled:
        """Appends the ruling if its `after` is still the last revision; one that stands there already has won before.

        Raises `IngestRefused` naming the field, `Superseded` naming the last revision, and what `Relight.rule` raises.
        """
        within_s = self._recorder.ack_timeout_s if timeout_s is None else timeout_s
        incoming, event, id = checked(IncomingRuling, document, self._recorder, tenant)
        ruling = cast(Control, event)

        async def append(log: ControlLog) -> Tail:
            last = await log.tail(type(ruling), tenant=tenant, entity=ruling.entity, timeout_s=within_s)
            if last.event is not None and (last.event.id, last.rev) == (id, incoming.after + 1):
                return last
            if last.rev != incoming.after:
                raise Superseded(
                    f"{last.subject} is at revision {last.rev}, not {incoming.after}: fold it, then decide again"
                )
            return await log.append(
                ruling,
                after=last,
                tenant=tenant,
                policy_version=incoming.policyversion,
                observed_seq=incoming.observedseq,
                decided_at=incoming.time,
                timeout_s=within_s,
                event_id=id,
            )

        with scope.entered(
            tenant=tenant,
            correlation=incoming.correlationid,
            causation=incoming.causationid,
            traceparent=incoming.traceparent,
        ):
            tail = await self._in_log(append)
        await self._reached(tail, ack, within_s)
        return Ruled(id=id, receipt=f"{tail.rev}@{tail.subject}", ack=ack, rev=tail.rev, seq=tail.seq)

    async def _in_log(self, work: Callable[[ControlLog], Awaitable[T]]) -> T:
        asking: Coroutine[Any, Any, T] = self._recorder.with_control(work)
        return await asyncio.wrap_future(self._recorder.in_loop(asking))

    async def _reached(self, tail: Tail, ack: Ack, timeout_s: float) -> None:
        if ack is Ack.PROJECTED:
            await self._recorder.ruling_projected(tail, timeout_s=timeout_s)
        if ack is Ack.REPLICATED:
            try:
                async with asyncio.timeout(timeout_s):
                    attestation = await self._recorder.attestation()
            except TimeoutError:
                raise AckTimeout(
                    f"revision {tail.rev} of {tail.subject} was not proven within {timeout_s:g} s"
                ) from None
            if not attestation.proven:
                raise AckNotProven(
                    f"revision {tail.rev} of {tail.subject} is acknowledged by the stream, but not proven durable:"
                    f" {'; '.join(attestation.faults)}"
                )
