"""The clients as a process: lines of JSON tell it what to do, and it answers with what the clients met."""

import asyncio
import sys
from collections.abc import Callable
from random import Random
from typing import Any

import aiohttp
import asyncpg
import uvloop
from asking import AsyncpgPool, Client, own_connection
from balancer import Balancer
from children import commands, say
from plan import Plan
from tally import Side, Tally

TICK_S = 0.5


class Asking:
    """`begin` and `end` frame a stretch of asking; between them every client lives."""

    def __init__(self, plan: Plan, tokens: dict[str, str], balancer: Balancer, pool: AsyncpgPool) -> None:
        self._plan, self._tokens = plan, tokens
        self._balancer, self._pool = balancer, pool
        self._ending = asyncio.Event()
        self._clients: list[asyncio.Task[None]] = []
        self.tally = Tally()
        self._none_ready_s = 0.0

    def begin(self, name: str, *, clients: int, warm_up_s: float, side: Side | None) -> None:
        """Thinking clients, or with a `side` such as ask it again as soon as they are answered."""
        self.tally, self._ending = Tally(warm_up_s=warm_up_s), asyncio.Event()
        self._none_ready_s = self._balancer.none_ready_s
        self._clients = [
            asyncio.create_task(self._live(number, Random(f"{self._plan.seed} {name} {number}"), side))
            for number in range(clients)
        ]

    async def end(self) -> dict[str, Any]:
        """Every question at hand is waited for: what they met."""
        self._ending.set()
        for task in self._clients:
            await task
        return {**self.tally.summary(), "none_ready_s": self._balancer.none_ready_s - self._none_ready_s}

    async def _live(self, number: int, lot: Random, side: Side | None) -> None:
        async with own_connection() as session:
            client = Client(
                number=number,
                plan=self._plan,
                token=self._tokens[self._plan.tenant(number)],
                balancer=self._balancer,
                pool=self._pool,
                tally=self.tally,
                lot=lot,
                session=session,
            )
            try:
                await (client.think_and_ask(self._ending) if side is None else client.ask_and_ask(side, self._ending))
            finally:
                self._balancer.left(client.server)


async def main() -> None:
    orders = commands()
    told = await anext(orders)
    plan = Plan(**told["plan"])
    async with (
        aiohttp.ClientSession() as polling,
        asyncpg.create_pool(
            told["database_url"],
            min_size=0,
            max_size=plan.pool_size * plan.apis,
            server_settings={"application_name": "drill bare pool"},
        ) as pool,
    ):
        balancer = Balancer(polling, told["servers"])
        asking = Asking(plan, told["tokens"], balancer, pool)
        ticking = asyncio.create_task(_tick(lambda: {**asking.tally.tick(), "ready": balancer.ready}))
        say({"kind": "started"})
        async for order in orders:
            match order.pop("do"):
                case "servers":
                    balancer.known(order["urls"])
                case "begin":
                    asking.begin(**order)
                case "end":
                    say({"kind": "summary", **await asking.end()})
        ticking.cancel()


async def _tick(of: Callable[[], dict[str, Any]]) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        say({"kind": "tick", **of()})


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
