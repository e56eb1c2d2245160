"""Asks /health again and again, and knows afterwards when it first said something else."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
import orjson

POLL_S = 0.05
TIMEOUT_S = 5.0
GOOD = frozenset({"pass", "healthy"})
BAD = frozenset({"fail", "unhealthy"})


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: when it came, its HTTP status (0: none came), and the status that the document names."""

    at: float
    code: int
    status: str
    body: str

    @property
    def is_bad(self) -> bool:
        return self.code == 503 or self.status in BAD


class HealthWatch:
    """Asks as long as its `with` lasts; every answer within 5 s, else it counts as none."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: list[Said] = []

    async def __aenter__(self) -> Self:
        self._asking = asyncio.create_task(self._ask())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asking.cancel()
        with suppress(asyncio.CancelledError):
            await self._asking

    def first_bad(self, since: float) -> float | None:
        """Seconds from then to the first answer that says unhealthy."""
        return next((said.at - since for said in self.answers if said.at >= since and said.is_bad), None)

    def last_bad(self, since: float) -> Said | None:
        return next((said for said in reversed(self.answers) if said.at >= since and said.is_bad), None)

    async def _ask(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as client:
            while True:
                self.answers.append(await self._once(client))
                await asyncio.sleep(POLL_S)

    async def _once(self, client: aiohttp.ClientSession) -> Said:
        try:
            async with client.get(self._url) as answer:
                body = await answer.read()
                with suppress(ValueError):
                    document = orjson.loads(body)
                    return Said(time.monotonic(), answer.status, str(document.get("status")), body[:500].decode())
                return Said(time.monotonic(), answer.status, "", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Said(time.monotonic(), 0, "", repr(error))
