"""Watches the stream: a cheap look every few seconds, an audit where it is suspicious, rounds until all is healed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from nats.aio.client import Client

from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import Rewound
from relight.engine.healing.asking import Asking
from relight.engine.healing.healer import LOST_AFTER, Healer
from relight.engine.healing.known import load_losses, missing_of
from relight.engine.healing.missing import declared_losses, gaps
from relight.engine.healing.signs import AUDIT_EVERY, audited, look, suspicion, trimmed_through
from relight.engine.log.numbers import both, less
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.topology import close
from relight.engine.tables.connecting import Session
from relight.engine.tables.projector import DATABASE_AWAY
from relight.events.base import Event

LOOK_EVERY_S = 2.0
RETRY_S = 1.0
FIRST_PAUSE_S, LAST_PAUSE_S = 2.0, 600.0
"""Between two rounds that left something."""
LEAD, ROUND = 0x7265_6C68, 0x7265_6C72
"""Upper halves of the locks' keys; the lower one is the table's oid, as of the projector's lock."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Healing:
    """What healing works with. `open_client` opens a client that reads message ids, `open_session` a session that acts
    as relight_projector. `turn` says whether it is for this process to heal: of several regions only one does."""

    open_client: Callable[[], Awaitable[Client]]
    open_session: Callable[[], Awaitable[Session]]
    say: Callable[[Sequence[Event]], Awaitable[None]]
    store: ArchiveStore | None = None
    lost_after: timedelta = LOST_AFTER
    look_every_s: float = LOOK_EVERY_S
    first_pause_s: float = FIRST_PAUSE_S
    turn: Callable[[], bool] = lambda: True


async def watch(healing: Healing) -> None:
    """Until cancelled. Of several processes the one whose session holds a lock watches; others stand by."""
    while True:
        try:
            async with AsyncExitStack() as stack:
                session = await stack.enter_async_context(_session(healing))
                while not await try_lock(session, LEAD):  # noqa: ASYNC110  # another process's ends without a word
                    await asyncio.sleep(healing.look_every_s)
                client = await healing.open_client()
                stack.push_async_callback(close, client)
                asking = await stack.enter_async_context(Asking(client))
                await _Watch(healing, client, session, asking).run()
        except (*TRANSIENT, *DATABASE_AWAY) as error:
            log.info("healing waits: %r", error, extra={"action": "healing_retry"})
        except Exception:  # the daemon's edge: whatever it is, the next try may do
            log.exception("healing failed, retrying", extra={"action": "healing_failed"})
        await asyncio.sleep(RETRY_S)


@asynccontextmanager
async def healer(healing: Healing) -> AsyncIterator[tuple[Healer, Session]]:
    """For single rounds; the session takes turns with others by `one_round`."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(_session(healing))
        client = await healing.open_client()
        stack.push_async_callback(close, client)
        asking = await stack.enter_async_context(Asking(client))
        yield _healer(healing, client, session, asking), session


def _healer(healing: Healing, client: Client, session: Session, asking: Asking) -> Healer:
    return Healer(client, session, asking, store=healing.store, say=healing.say, lost_after=healing.lost_after)


@asynccontextmanager
async def _session(healing: Healing) -> AsyncIterator[Session]:
    session = await healing.open_session()
    try:
        yield session
    finally:
        # An error of closing must not take the place of what ended the session, a cancellation above all.
        try:
            await session.close(timeout=2)
        except DATABASE_AWAY:
            session.terminate()


async def try_lock(session: Session, key: int) -> bool:
    """Held until the session ends, or `unlock`."""
    return bool(
        await session.fetchval(
            "SELECT pg_try_advisory_lock($1::bigint << 32 | 'stream_losses'::regclass::oid::bigint)", key
        )
    )


@asynccontextmanager
async def one_round(session: Session) -> AsyncIterator[None]:
    """`relight heal` and the service take turns."""
    while not await try_lock(session, ROUND):  # noqa: ASYNC110  # likewise
        await asyncio.sleep(0.1)
    try:
        yield
    finally:
        with suppress(*DATABASE_AWAY):
            await session.execute(
                "SELECT pg_advisory_unlock($1::bigint << 32 | 'stream_losses'::regclass::oid::bigint)", ROUND
            )


class _Watch:
    """Of the process that leads."""

    def __init__(self, healing: Healing, client: Client, session: Session, asking: Asking) -> None:
        self._healing = healing
        self._client = client
        self._session = session
        self._mender = _healer(healing, client, session, asking)
        self._asking = asking
        self._pause_s = healing.first_pause_s
        self._next_round_at = 0.0
        self._held = True

    async def run(self) -> None:
        """Raises what servers that are away raise."""
        while True:
            try:
                if self._healing.turn():
                    await self._look()
                else:
                    self._asking.here.clear()  # or it would be waited for in vain, for ever and at once
            except (*TRANSIENT, Rewound) as error:
                if self._session.is_closed() or self._client.is_closed:
                    raise
                log.info("the stream cannot be looked at yet: %r", error, extra={"action": "healing_retry"})
                await asyncio.sleep(RETRY_S)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._healing.look_every_s):
                    await self._asking.here.wait()

    async def _look(self) -> None:
        here = self._asking.here.is_set()
        self._asking.here.clear()
        seen, holds = await look(self._client, self._session)
        before, why = await audited(self._session), None
        if before is not None and before[2] - before[1] > AUDIT_EVERY:
            why = f"it was looked through at {before[1]:%Y-%m-%d %H:%M} last"
        why = why or suspicion(
            seen,
            before[0] if before else None,
            holds=holds or not self._held,
            trimmed_through_seq=await trimmed_through(self._session),
        )
        self._held = holds
        if why is not None:
            log.warning("looking the stream through: %s", why, extra={"action": "audit"})
            async with one_round(self._session):
                self._paced(bool((await self._mender.heal_all()).left), anew=True)
        elif await self._due(here):
            async with one_round(self._session):
                self._paced(bool((await self._mender.heal_known()).left), anew=here)

    async def _due(self, here: bool) -> bool:
        known = missing_of(await load_losses(self._session))
        fresh = less(await gaps(self._session), both(known, await declared_losses(self._session)))
        if fresh:
            return True
        waited = here or asyncio.get_running_loop().time() >= self._next_round_at
        return bool(known) and waited

    def _paced(self, left: bool, *, anew: bool) -> None:
        self._pause_s = self._healing.first_pause_s if anew or not left else min(2 * self._pause_s, LAST_PAUSE_S)
        self._next_round_at = asyncio.get_running_loop().time() + self._pause_s
