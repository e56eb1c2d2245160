"""Clients: each thinks, asks over HTTP on a connection of its own, and now and then asks the bare pool the same."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import aiohttp
import asyncpg
from balancer import Balancer
from mix import Question, question
from plan import ROWS, Plan
from tally import Side, Tally

if TYPE_CHECKING:
    AsyncpgPool = asyncpg.Pool[asyncpg.Record]
else:
    AsyncpgPool = asyncpg.Pool

ANSWER_S = 30.0
AFTER_FAILURE_S = 0.05
BARE_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError, OSError)
KEEP_ALIVE_S = 15.0
"""Less than any server's: a connection that a server closes just as it is used again would be a failure of neither."""


@dataclass(kw_only=True)
class Client:
    """One user; `lot` decides all it does."""

    number: int
    plan: Plan
    token: str
    balancer: Balancer
    pool: AsyncpgPool
    tally: Tally
    lot: Random
    session: aiohttp.ClientSession
    server: str | None = field(default=None)

    @property
    def tenant(self) -> str:
        return self.plan.tenant(self.number)

    async def think_and_ask(self, ending: asyncio.Event) -> None:
        while not await _ended(ending, self.lot.expovariate(1 / self.plan.think_s)):
            asked = question(self.lot, self.number % self.plan.tenants, self.plan.tenants)
            sides: list[Side] = ["http", "bare"] if self.lot.random() < self.plan.beside else ["http"]
            self.lot.shuffle(sides)
            for side in sides:
                await self.ask(side, asked)

    async def ask_and_ask(self, side: Side, ending: asyncio.Event) -> None:
        while not ending.is_set():
            await self.ask(side, question(self.lot, self.number % self.plan.tenants, self.plan.tenants))

    async def ask(self, side: Side, asked: Question) -> None:
        began = time.monotonic()
        if side == "http":
            await self._ask_http(asked, began)
        else:
            await self._ask_bare(asked, began)

    async def _ask_http(self, asked: Question, began: float) -> None:
        self.server = self.balancer.choose(self.server)
        try:
            async with self.session.get(
                f"{self.server}/v1/queries/{asked.name}",
                params={**asked.arguments, "limit": str(ROWS)},
                headers={"Authorization": f"Bearer {self.token}"},
            ) as answer:
                body = await answer.read()
                if answer.status == 200:
                    self.tally.answered("http", began)
                    return
                is_problem = answer.content_type == "application/problem+json"
                cause = f"{asked.name}: {answer.status} {body[:200].decode(errors='replace')}"
                self.tally.failed("http", began, cause, is_problem=is_problem, status=answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.tally.failed("http", began, f"{asked.name} at {self.server}: {error!r}")
        await asyncio.sleep(AFTER_FAILURE_S)

    async def _ask_bare(self, asked: Question, began: float) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self.pool.fetch(asked.sql, *asked.values(self.tenant))
            self.tally.answered("bare", began)
        except BARE_FAILURES as error:
            self.tally.failed("bare", began, f"{asked.name}: {error!r}")


async def _ended(ending: asyncio.Event, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await ending.wait()
    return ending.is_set()


@asynccontextmanager
async def own_connection() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps its connection alive, with no cookie and no limit of others'."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session
