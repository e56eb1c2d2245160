"""Believes bearer tokens: asks the table, and for a few seconds remembers the answer."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from relight.engine.clock import Clock
from relight.engine.errors import TokenRefused, Unreachable
from relight.engine.tables.tokens import StoredToken, Token, token_id

BELIEVED_S = 5.0
"""How long an answer is believed: so fast a revocation works, in every process."""
BELIEVED_WITHOUT_DATABASE_S = 300.0
"""How long a token that was good goes on while PostgreSQL is away."""
LOOKUP_S = 2.0
"""A lookup that takes longer counts as PostgreSQL being away; so long nobody asks again."""
MAX_REMEMBERED = 10_000
"""Of known tokens, and as many of ids that nobody has: guesses cannot push out what is known."""


@dataclass(slots=True)
class Answer:
    """What the table said, and when, by the monotonic clock."""

    stored: StoredToken | None
    at: float


class Verifier:
    """Remembers answers by the token's id, so that a known id with a wrong secret is refused without asking."""

    def __init__(self, load: Callable[[str], Awaitable[StoredToken | None]], clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._known: OrderedDict[str, Answer] = OrderedDict()
        self._unknown: OrderedDict[str, Answer] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Answer]] = {}
        self._away_until = 0.0

    def remembers(self, text: str) -> bool:
        """Whether this very token was found good before: then it is worth asking whether it still is."""
        found = self._known.get(token_id(text))
        return found is not None and found.stored is not None and found.stored.proves(text)

    async def verify(self, text: str) -> Token:
        """The token whose text this is. Raises `TokenRefused`; `Unreachable` when nobody can tell."""
        answer = await self._answer(token_id(text))
        if answer.stored is None or not answer.stored.proves(text):
            raise TokenRefused("the bearer token is unknown: make one with `relight token create`")
        answer.stored.token.check(self._clock.now())
        return answer.stored.token

    async def _answer(self, id: str) -> Answer:
        found = self._known.get(id) or self._unknown.get(id)
        now = time.monotonic()
        if found is not None and now - found.at < BELIEVED_S:
            return found
        usable = found is not None and found.stored is not None and now - found.at < BELIEVED_WITHOUT_DATABASE_S
        if now < self._away_until:
            if found is not None and usable:
                return found
            raise Unreachable("PostgreSQL is away, and this token is not known here: ask again")
        try:
            return await self._ask(id)
        except Unreachable:
            self._away_until = time.monotonic() + LOOKUP_S
            if found is not None and usable:
                return found
            raise

    async def _ask(self, id: str) -> Answer:
        """One lookup, however many wait for it; who gives up waiting does not end it."""
        task = self._asking.get(id)
        if task is None:
            task = self._asking[id] = asyncio.create_task(self._lookup(id))
            task.add_done_callback(lambda _: self._asking.pop(id, None))
        return await asyncio.shield(task)

    async def _lookup(self, id: str) -> Answer:
        try:
            async with asyncio.timeout(LOOKUP_S):
                stored = await self._load(id)
        except TimeoutError:
            raise Unreachable(f"PostgreSQL had no answer about a token within {LOOKUP_S:g} s: ask again") from None
        answer = Answer(stored, time.monotonic())
        remembered, other = (self._known, self._unknown) if stored else (self._unknown, self._known)
        other.pop(id, None)
        remembered[id] = answer
        remembered.move_to_end(id)
        if len(remembered) > MAX_REMEMBERED:
            remembered.popitem(last=False)
        return answer
