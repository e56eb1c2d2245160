"""Which server a client asks: one that says it is ready, as behind a Kubernetes service."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from math import ceil

import aiohttp

POLL_S = 0.1
TIMEOUT_S = 1.0


class Balancer:
    """Polls `/readyz` of every server it knows; clients stay with theirs until it is unready or has too many."""

    def __init__(self, client: aiohttp.ClientSession, urls: Sequence[str]) -> None:
        self._client = client
        self._polling: dict[str, asyncio.Task[None]] = {}
        self._ready: set[str] = set()
        self._clients: Counter[str] = Counter()
        self._none_since: float | None = None
        self._none_s = 0.0
        self.known(urls)

    @property
    def ready(self) -> list[str]:
        return sorted(self._ready)

    @property
    def none_ready_s(self) -> float:
        """How long in all there were servers, and none was ready."""
        return self._none_s + (0 if self._none_since is None else time.monotonic() - self._none_since)

    def known(self, urls: Sequence[str]) -> None:
        """These are the servers from now on; a new one is asked for nothing before it has said that it is ready."""
        for url in set(self._polling) - set(urls):
            self._polling.pop(url).cancel()
            self._ready.discard(url)
        for url in urls:
            if url not in self._polling:
                self._polling[url] = asyncio.create_task(self._poll(url))

    def choose(self, mine: str | None) -> str:
        """The server of a client that was with `mine`. When none is ready any will do: it has to say why.

        A Kubernetes service would refuse then: `none_ready_s` tells for how long.
        """
        among = self._ready or set(self._polling)
        if mine in among and self._clients[mine] <= ceil(self._clients.total() / len(among)) + 1:
            return mine
        chosen = min(sorted(among), key=self._clients.__getitem__)
        self.left(mine)
        self._clients[chosen] += 1
        return chosen

    def left(self, mine: str | None) -> None:
        if mine is not None:
            self._clients[mine] -= 1

    async def _poll(self, url: str) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        while True:
            try:
                async with self._client.get(f"{url}/readyz", timeout=timeout) as answer:
                    is_ready = answer.status == 200
            except (aiohttp.ClientError, TimeoutError, OSError):
                is_ready = False
            if is_ready:
                self._ready.add(url)
            else:
                self._ready.discard(url)
            self._note()
            await asyncio.sleep(POLL_S)

    def _note(self) -> None:
        if not self._ready:
            self._none_since = self._none_since or time.monotonic()
        elif self._none_since is not None:
            self._none_s, self._none_since = self.none_ready_s, None
