"""Tells budgets what other processes spent: a query over the tables now and then."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import reduce

from relight.engine.clock import Clock
from relight.engine.errors import RelightError
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.routes.refusals import moment
from relight.engine.policies.budget import NOTHING, Amounts, Spending
from relight.projections.model_calls import Spent
from relight.projections.query import Row

EVERY_S, POLL_S = 5.0, 0.2
BEHIND_S = 10
"""What ended so long ago is taken to be in the tables."""
AT_MOST = 64
"""Counts asked for in one round; those that were not asked for longest come first."""
SHARE = 20
"""The database works at most one part in so many of the time on it."""
_US = 1_000_000

Ask = Callable[..., Awaitable[Sequence[Row]]]
"""`Relight.query`."""

log = logging.getLogger(__name__)


class SpentElsewhere:
    """Asks the tables every few seconds, for the counts that this process uses.

    Between two rounds a limit can be exceeded by what the others spend in that time, and in the `BEHIND_S` seconds
    before: the tables are believed up to then, and after it each process knows only itself. Of others' calls each
    counts as one attempt. While the tables do not answer, a process goes on with what it knew.
    """

    def __init__(
        self, budgets: Budgets, ask: Ask, *, clock: Clock, every_s: float = EVERY_S, behind_s: int = BEHIND_S
    ) -> None:
        self._budgets = budgets
        self._ask = ask
        self._clock = clock
        self._every_s = every_s
        self._behind_s = behind_s
        self._asked: dict[Spending, int] = {}
        """The moment up to which each count was asked for."""
        self._known: dict[Spending, dict[str, tuple[int, Amounts]]] = {}
        """Of those that are counted in all, by tenant, up to when how much: only what came since is asked for."""
        self.failures = 0
        budgets.follow()

    async def run(self) -> None:
        """Until it is cancelled; a count that is begun is asked for at once."""
        loop = asyncio.get_running_loop()
        while True:
            began_s, begun = loop.time(), self._budgets.begun
            try:
                await self.refresh()
            except RelightError as error:
                self.failures += 1
                log.warning("budgets go on with what they knew: %s", error, extra={"action": "budgets_not_refreshed"})
            pause_s = (loop.time() - began_s) * SHARE
            await asyncio.sleep(pause_s)
            while pause_s < self._every_s and begun == self._budgets.begun:
                await asyncio.sleep(POLL_S)
                pause_s += POLL_S

    async def refresh(self) -> None:
        """One round. Raises what the query raises, and the counts after it are not told."""
        now_us = self._clock.now_us()
        until_us = (now_us // _US - self._behind_s) * _US
        counts = self._budgets.followed()
        self._forget({count for count, _ in counts})
        for count, tenants in sorted(counts, key=lambda found: self._asked.get(found[0], 0))[:AT_MOST]:
            since_us = count.since_us(now_us) // _US * _US
            if since_us < until_us:
                found = [await self._until(until_us, count, tenant, since_us) for tenant in tenants]
                self._budgets.told(count, reduce(Amounts.plus, found, NOTHING), until_us)
            self._asked[count] = until_us

    async def _until(self, until_us: int, count: Spending, tenant: str, since_us: int) -> Amounts:
        if since_us:
            return await self._spent(count, tenant, since_us, until_us)
        of_tenants = self._known.setdefault(count, {})
        known_us, known = of_tenants.get(tenant, (0, NOTHING))
        known = known.plus(await self._spent(count, tenant, known_us, until_us))
        of_tenants[tenant] = (until_us, known)
        return known

    async def _spent(self, count: Spending, tenant: str, since_us: int, until_us: int) -> Amounts:
        named = count.limit.named(count.key)
        rows = await self._ask(
            "decisions.spent",
            tenant=tenant,
            since=moment(since_us),
            seconds=(until_us - since_us) // _US,
            agent=named.get("agent", "*"),
            task=named.get("task", "*"),
        )
        for row in rows:
            if isinstance(row, Spent) and row.tenant == tenant:
                return Amounts(row.input_tokens + row.output_tokens, row.cost_microusd, row.calls)
        return Amounts()

    def _forget(self, counts: set[Spending]) -> None:
        for gone in self._asked.keys() - counts:
            del self._asked[gone]
            self._known.pop(gone, None)
