"""The rulings among a file's facts: each the first on its entity, and none where somebody has ruled already."""

import asyncio

from nats.aio.client import Client

from relight.engine import scope
from relight.engine.clock import Clock
from relight.engine.errors import AckTimeout
from relight.engine.importers.identity import Fact, Identity
from relight.engine.importers.scanning import Scan
from relight.engine.log.control import ControlLog, Tail
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.events.base import Control


async def append_rulings(found: Scan, client: Client, clock: Clock, *, within_s: float) -> list[int]:
    """Appends what is not there, and waits until it is projected; returns the numbers, from 0, of the rows concerned.

    Raises `AckTimeout`, `Superseded`, `Unreachable`.
    """
    identity = found.identity
    control = ControlLog(
        client,
        region=identity.owner.region,
        publisher=identity.publisher,
        clock=clock,
        on_append=lambda copy: None,  # a source that can be read again is not kept for healing
    )
    rows, last = [], None
    for number, entry in enumerate(found.entries(clock)):
        ids: list[str] = []
        appended = None
        for event_id, fact in identity.facts(entry):
            ids.append(event_id)
            if isinstance(fact.event, Control):
                appended = await _append(control, fact.event, fact, ids, identity) or appended
        if appended is not None:
            rows.append(number)
            last = appended
    if last is not None:
        await _projected(last, client, within_s)
    return rows


async def _append(control: ControlLog, event: Control, fact: Fact, ids: list[str], identity: Identity) -> Tail | None:
    tenant = identity.owner.tenant
    tail = await control.tail(type(event), tenant=tenant, entity=event.entity)
    if tail.rev:
        return None
    with scope.entered(correlation=fact.correlation, causation=None if fact.cause is None else ids[fact.cause]):
        return await control.append(
            event,
            after=tail,
            tenant=tenant,
            policy_version=f"import-{identity.format.name}",
            event_id=ids[-1],
            time=fact.time,
        )


async def _projected(tail: Tail, client: Client, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            await ProjectedWatermarks(client).reached(tail.subject, tail.rev)
    except TimeoutError:
        raise AckTimeout(
            f"revision {tail.rev} of {tail.subject} was not projected within {within_s:g} s: does a projector run?"
        ) from None
