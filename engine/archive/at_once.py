"""Several works at once, with a bound on how many, and on the bytes that they hold."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Room:
    """For so many bytes, shared by whoever works at the same time."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._taken_bytes = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Waits until there is room; whoever needs more than all of it is alone in it."""
        size = min(size, self._max_bytes)
        async with self._changed:
            await self._changed.wait_for(lambda: self._taken_bytes + size <= self._max_bytes)
            self._taken_bytes += size
        try:
            yield
        finally:
            async with self._changed:
                self._taken_bytes -= size
                self._changed.notify_all()


async def at_once(tasks: int, items: Iterable[T], work: Callable[[T], Awaitable[U]]) -> list[U]:
    """What `work` gives of each item, in their order; the first error ends all, and is raised."""
    numbered = enumerate(items)
    found: dict[int, U] = {}

    async def take(numbered: Iterator[tuple[int, T]]) -> None:
        for number, item in numbered:
            found[number] = await work(item)

    workers = [asyncio.ensure_future(take(numbered)) for _ in range(tasks)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [found[number] for number in sorted(found)]
