"""What a recorder believes of its servers: a prober's attestation, until it expires or something changed."""

import asyncio
import secrets
import time
from typing import Protocol

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from pydantic import ValidationError

from relight.engine.log.answers import answered
from relight.engine.log.topology import changes_of
from relight.engine.proving.models import Attestation
from relight.engine.proving.prober import UNPROVEN_S, Prober
from relight.engine.proving.questions import PUSHED, QUESTION, Answer, Notice, Question

ANSWER_S = 8.0
"""Of a prober that has to ask first; it takes no longer itself."""
UNSETTLED_S = 0.2
RETURNS_WITHIN_S = 5.0
"""So long a prober that answered before is waited for: the service may just be restarted."""
NOBODY = (
    "no prober answers: is a relight service running with RELIGHT_NATS_SYSTEM_URL or RELIGHT_NATS_MONITOR_URLS set?"
)


class Attester(Protocol):
    """Whoever can tell what is proven now."""

    async def attest(self) -> Attestation: ...


class Attestations:
    """Asks for them over NATS, on the client of a recorder; `fallback` asks the servers where no prober answers.

    Whatever shows that a server came, went or was changed voids the one in hand: a reconnect, what the server says of
    its cluster ahead of any acknowledgement that follows, a prober's push. The next is then asked for from that moment.
    """

    def __init__(self, client: Client, *, ttl_s: float, fallback: Prober | None = None) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._fallback = fallback
        self._lock, self._settling = asyncio.Lock(), asyncio.Lock()
        self._held: Attestation | None = None
        self._last: tuple[Attestation, float] | None = None
        self._held_for: tuple[int, int, int] | None = None
        self._expires = 0.0
        self._pushes, self._renewed = 0, False
        self._unanswered_since: float | None = None
        self._listening = False

    async def attest(self) -> Attestation:
        """The one in hand, or a new one."""
        if (held := self._holding()) is not None:
            return held
        async with self._lock:
            if (held := self._holding()) is not None:
                return held
            # Only an answer that merely grew old may be followed by one from the prober's store.
            self._renewed = False
            fresh, changes, asked = self._held_for != self._changes(), self._changes(), time.monotonic()
            found = await self._ask(fresh=fresh)
            self._held, self._held_for = found, changes
            if found.proven and found.prober is not None:
                self._last = found, asked
            if found.proven:
                self._expires = asked + min(found.valid_s, self._ttl_s)
            else:
                self._expires = time.monotonic() + (UNPROVEN_S if found.settled else UNSETTLED_S)
            return found

    async def settled(self) -> Attestation:
        """The same; while an answer may still come, that is waited for: by one for all who ask."""
        if (held := self._holding()) is not None and held.settled:
            return held
        async with self._settling:
            while True:
                found = await self.attest()
                if found.settled:
                    return found
                await asyncio.sleep(UNSETTLED_S)

    def _changes(self) -> tuple[int, int, int]:
        return *changes_of(self._client), self._pushes

    def _holding(self) -> Attestation | None:
        if self._held is None or self._renewed or self._held_for != self._changes() or time.monotonic() > self._expires:
            return None
        return self._held

    async def _ask(self, *, fresh: bool) -> Attestation:
        await self._listen()
        question = Question(nonce=secrets.token_hex(8), fresh=fresh)
        asking = self._client.request(QUESTION, question.model_dump_json().encode(), timeout=ANSWER_S)
        try:
            answer = Answer.model_validate_json((await answered(self._client, asking, within_s=ANSWER_S)).data)
        except NoRespondersError:
            return await self._unanswered(NOBODY)
        except (NatsError, TimeoutError, OSError, ValidationError) as error:
            return await self._unanswered(f"{NOBODY} ({error!r})")
        self._unanswered_since = None
        if answer.nonce != question.nonce:
            return await self._unanswered("somebody answered in the prober's place: see to who may listen on proof.ask")
        return answer.attestation

    async def _unanswered(self, why: str) -> Attestation:
        if self._fallback is not None:
            return await self._fallback.attest()
        if self._last is None:
            return Attestation(faults=(why,))
        last, asked = self._last
        now = time.monotonic()
        over_s = now - asked - min(last.valid_s, self._ttl_s)
        ended = f"expired {over_s:.1f} s ago" if over_s > 0 else "holds no longer, for servers came or went"
        if self._unanswered_since is None:
            self._unanswered_since = now
        waited = now - self._unanswered_since > RETURNS_WITHIN_S
        return Attestation(faults=(f"the attestation of {last.prober} {ended}, and {why}",), settled=waited)

    async def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            await self._client.subscribe(PUSHED, cb=self._on_push)

    async def _on_push(self, message: Msg) -> None:
        try:
            proven = Notice.model_validate_json(message.data).proven
        except ValidationError:
            proven = False
        if proven:  # what the prober holds is no older than this
            self._renewed = True
        else:
            self._pushes += 1
