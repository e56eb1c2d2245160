"""How much may be in hand at once, in all and of one tenant, so that a flood of one leaves room for the others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from relight.engine.errors import RequestRefused


class Admission:
    """Counts messages in hand and their bytes; those beyond the bounds are refused at once rather than queued."""

    def __init__(self, *, messages: int, tenant_messages: int, total_bytes: int, tenant_bytes: int) -> None:
        self._max_messages = messages
        self._max_tenant_messages = tenant_messages
        self._max_bytes = total_bytes
        self._max_tenant_bytes = tenant_bytes
        self._bytes = 0
        self._messages = 0
        self._of_tenant: Counter[str] = Counter()
        self._bytes_of_tenant: Counter[str] = Counter()

    @contextmanager
    def entered(self, tenant: str, size: int) -> Iterator[None]:
        """For the duration of the `with`. Raises `RequestRefused`."""
        if self._messages >= self._max_messages or self._bytes + size > self._max_bytes:
            raise RequestRefused("unavailable", f"{self._messages} messages are in hand here: send it again later")
        if (
            self._of_tenant[tenant] >= self._max_tenant_messages
            or self._bytes_of_tenant[tenant] + size > self._max_tenant_bytes
        ):
            raise RequestRefused(
                "too-many-at-once",
                f"{self._of_tenant[tenant]} messages of this tenant are in hand: wait for answers first",
            )
        self._count(tenant, 1, size)
        try:
            yield
        finally:
            self._count(tenant, -1, -size)

    def _count(self, tenant: str, messages: int, size: int) -> None:
        self._messages += messages
        self._bytes += size
        self._of_tenant[tenant] += messages
        self._bytes_of_tenant[tenant] += size
        if not self._of_tenant[tenant]:
            del self._of_tenant[tenant], self._bytes_of_tenant[tenant]


class Turns:
    """At most so many at a time of one tenant; the others wait for their turn."""

    def __init__(self, at_once: int) -> None:
        self._at_once = max(1, at_once)
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._interested: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, tenant: str) -> AsyncIterator[None]:
        turns = self._turns.setdefault(tenant, asyncio.Semaphore(self._at_once))
        self._interested[tenant] += 1
        try:
            async with turns:
                yield
        finally:
            self._interested[tenant] -= 1
            if not self._interested[tenant]:
                del self._turns[tenant], self._interested[tenant]
