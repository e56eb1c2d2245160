"""Whether the stream's servers are proven to fsync, and since when that is so."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from relight.engine.health.limits import LOOK_S
from relight.engine.health.models import Check, Kind
from relight.engine.log.proof import Prober
from relight.engine.log.reader import TRANSIENT


@dataclass(frozen=True, kw_only=True)
class ProofLook:
    """`for_s`: how long the answer has been the same; `faults` is empty when proven."""

    proven: bool
    faults: tuple[str, ...]
    for_s: float


class ProofWatch:
    """Asks the prober, which keeps its answer for a while, and remembers when it changed."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._proven: bool | None = None
        self._since = time.monotonic()

    async def look(self) -> ProofLook | None:
        """None: not answered within `LOOK_S`; what was proven may still hold."""
        try:
            async with asyncio.timeout(LOOK_S):
                found = await self._prober.attest()
        except TRANSIENT:
            return None
        if found.proven is not self._proven:
            self._proven, self._since = found.proven, time.monotonic()
        return ProofLook(proven=found.proven, faults=found.faults, for_s=time.monotonic() - self._since)


def proof_checks(look: ProofLook | None, now: datetime) -> Iterator[Check]:
    fsync = partial(Check, component="fsync", kind=Kind.DATASTORE, time=now)
    if look is None:
        yield fsync(measurement="proof").warned(
            True, "whether the stream's servers fsync was not answered in time: nothing is called replicated so long"
        )
        return
    yield fsync(measurement="proof", observed="proven" if look.proven else "not proven").warned(
        not look.proven, f"nothing is called replicated: {'; '.join(look.faults)}"
    )
    yield fsync(measurement="proofAge", observed=round(look.for_s, 3), unit="s")
