"""Whether acknowledged events are proven to be on disks: for which servers, by whom, since when, until when."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

from relight.engine.health.limits import LOOK_S
from relight.engine.health.models import Check, Kind
from relight.engine.log.reader import TRANSIENT
from relight.engine.proving.asking import Attester
from relight.engine.proving.models import Attestation


class ProofWatch:
    """Asks whoever can tell, and goes on with the last answer while the next is waited for, as long as that holds."""

    def __init__(self, attester: Attester) -> None:
        self._attester = attester
        self._asking: asyncio.Task[Attestation] | None = None

    async def look(self) -> Attestation | None:
        """None: not answered within `LOOK_S`; what was proven may still hold."""
        if self._asking is None or self._asking.done():  # one that came too late for its look is old by now
            self._asking = asyncio.create_task(self._attester.attest(), name="proof")
        done, _ = await asyncio.wait([self._asking], timeout=LOOK_S)
        if not done:
            return None
        asking, self._asking = self._asking, None
        try:
            return asking.result()
        except TRANSIENT:
            return None

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking], timeout=LOOK_S)


def proof_checks(look: Attestation | None, now: datetime) -> Iterator[Check]:
    fsync = partial(Check, component="fsync", kind=Kind.DATASTORE, time=now)
    if look is None:
        yield fsync(measurement="proof").warned(
            True, "whether the stream's servers fsync was not answered in time: nothing is called replicated so long"
        )
        return
    observed = "proven" if look.proven else "not proven" if look.settled else "being asked again"
    why = f"{'; '.join(look.faults)}"
    yield fsync(measurement="proof", observed=observed).warned(
        not look.proven, f"nothing is called replicated: {why}" if look.settled else f"being proven again: {why}"
    )
    yield fsync(measurement="proofAge", observed=round(look.unchanged_s, 3), unit="s")
    if look.prober is None and look.source is None:
        return
    yield fsync(measurement="provenServers", observed=[str(server) for server in look.servers])
    yield fsync(measurement="absentServers", observed=list(look.absent)).warned(
        look.absent,
        f"replicas on {', '.join(look.absent)} are away: what is called replicated stands on"
        f" {', '.join(server.name for server in look.servers)} alone; bring them back",
    )
    yield fsync(measurement="source", observed=look.source)
    yield fsync(measurement="prober", observed=look.prober or "this process")
    yield fsync(measurement="asked", observed=round(look.asked_s_ago, 3), unit="s")
    yield fsync(measurement="since", observed=_moment(now, -look.unchanged_s))
    yield fsync(measurement="askedAt", observed=_moment(now, -look.asked_s_ago))
    if look.proven:
        yield fsync(measurement="validUntil", observed=_moment(now, look.valid_s))


def _moment(now: datetime, offset_s: float) -> str:
    return (now + timedelta(seconds=offset_s)).isoformat(timespec="milliseconds")
