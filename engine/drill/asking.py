"""Somebody in each region who asks its tables, and the next region's where they do not answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from relight.engine.errors import RelightError
from relight.engine.tables.connecting import GONE, Session

EVERY_S = 0.25
PATIENCE_S = 1.0
FAILED = (RelightError, TimeoutError, *GONE)

Connect = Callable[[str], Awaitable[Session]]


@dataclass(frozen=True, slots=True)
class Answered:
    """When, whose question, which region's tables answered, and how far these were."""

    at_s: float
    home: str
    region: str
    seq: int


class Asking:
    """`answers` grows while it runs."""

    def __init__(self, urls: Mapping[str, str], connect: Connect) -> None:
        self._urls = urls
        self._connect = connect
        self.answers: list[Answered] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for home in self._urls:
                group.create_task(self._ask(home, [home, *(other for other in self._urls if other != home)]))

    async def _ask(self, home: str, regions: Sequence[str]) -> None:
        sessions: dict[str, Session] = {}
        try:
            while True:
                for region in regions:
                    try:
                        async with asyncio.timeout(PATIENCE_S):
                            if region not in sessions:
                                sessions[region] = await self._connect(self._urls[region])
                            seq = await sessions[region].fetchval("SELECT max(seq) FROM projection_positions")
                    except FAILED:
                        if (session := sessions.pop(region, None)) is not None:
                            session.terminate()
                        continue
                    self.answers.append(Answered(time.monotonic(), home, region, seq or 0))
                    break
                await asyncio.sleep(EVERY_S)
        finally:
            for session in sessions.values():
                with suppress(*FAILED):
                    session.terminate()
