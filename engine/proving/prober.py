"""The prober: asks the stream's servers, asks anew whenever something changed, and lets no answer live for long."""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass

from nats.aio.client import Client

from relight.engine.log.topology import changes_of
from relight.engine.proving.judging import Verdict, judge
from relight.engine.proving.models import Attestation, Facts
from relight.engine.proving.sources import Source

UNPROVEN_S = 1.0
"""So long a negative answer holds where nobody polls: whoever corrects the server need not wait."""
SETTLE_S = 20.0
"""So long an answer that does not come is waited for before it counts as a no: by then the leader knows who is away, be
it one that was elected meanwhile (which takes 4 to 9 s over three regions)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A verdict, and when it was asked for, by the monotonic clock."""

    verdict: Verdict
    began: float
    changes: tuple[int, int]


class Prober:
    """`attest` gives the answer that holds; `run` polls, so that what changes is noticed before anybody asks.

    `client` is of the stream's account. A reconnect of it, or a change of its cluster, voids the answer. `changed` is
    called with each answer that differs from the one before.
    """

    def __init__(
        self,
        client: Client,
        source: Source,
        *,
        ttl_s: float,
        name: str | None = None,
        poll_s: float = 1.0,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._client = client
        self._source = source
        self._ttl_s = ttl_s
        self._name = name
        self._poll_s = poll_s
        self._settle_s = settle_s
        self.changed: Callable[[Attestation], None] = lambda _: None
        self._lock = asyncio.Lock()
        self._found: _Found | None = None
        self._since = self._missing_since = time.monotonic()
        self._polling = False
        self._seen: Hashable | None = None

    async def attest(self, *, fresh: bool = False) -> Attestation:
        """The answer that holds; with `fresh` one that was asked for from now on. Many who ask are one question."""
        now = time.monotonic()
        if fresh or (found := self._holding()) is None:
            async with self._lock:
                found = self._holding()
                if found is None or (fresh and found.began < now):
                    found = await self._ask()
        return self._attestation(found)

    async def run(self) -> None:
        """Until cancelled."""
        self._polling = True
        try:
            while True:
                await self._poll()
                await asyncio.sleep(self._poll_s)
        finally:
            self._polling = False

    async def close(self) -> None:
        await self._source.close()

    async def _poll(self) -> None:
        found = self._holding()
        seen = None if found is None or found.verdict.missing else await self._look()
        if found is not None and seen is not None and seen == self._seen and not self._renewable(found):
            return
        asked = await self.attest(fresh=True)
        self._seen = seen if asked.proven else None

    def _renewable(self, found: _Found) -> bool:
        return time.monotonic() - found.began > self._ttl_s / 2

    def _holding(self) -> _Found | None:
        found = self._found
        if found is None or found.changes != changes_of(self._client):
            return None
        proven = not (found.verdict.faults or found.verdict.missing)
        ttl_s = self._ttl_s if proven or self._polling else UNPROVEN_S
        return None if time.monotonic() - found.began > ttl_s else found

    async def _ask(self) -> _Found:
        before, changes, began = self._found, changes_of(self._client), time.monotonic()
        verdict = judge(await self._facts())
        found = self._found = _Found(verdict=verdict, began=began, changes=changes)
        if before is None or bool(before.verdict.missing) is not bool(verdict.missing):
            self._missing_since = began
        if before is None or before.verdict != verdict:
            self._since = began
            said = self._attestation(found)
            log.info("proof: %s", "; ".join(said.faults) or "proven", extra={"action": "attested"})
            with suppress(Exception):  # whoever is not told asks before the answer expires
                self.changed(said)
        return found

    async def _look(self) -> Hashable | None:
        try:
            return await self._source.look()
        except Exception as error:  # a daemon's edge: what could not be read is asked for in full
            log.error("looking failed", exc_info=error, extra={"action": "proof_failed"})
            return None

    async def _facts(self) -> Facts:
        try:
            return await self._source.ask()
        except Exception as error:  # whatever a server says, it proves nothing, and the next time may
            log.error("asking failed", exc_info=error, extra={"action": "proof_failed"})
            return Facts(missing=(f"what the {self._source.name} said cannot be read: {error!r}",))

    def _attestation(self, found: _Found) -> Attestation:
        verdict, now = found.verdict, time.monotonic()
        waited = now - self._missing_since >= self._settle_s
        return Attestation(
            faults=(*verdict.faults, *verdict.missing),
            servers=verdict.servers,
            absent=verdict.absent,
            settled=bool(verdict.faults) or not verdict.missing or waited,
            prober=self._name,
            source=self._source.name,
            asked_s_ago=now - found.began,
            unchanged_s=now - self._since,
            valid_s=max(0.0, self._ttl_s - (now - found.began)),
        )
