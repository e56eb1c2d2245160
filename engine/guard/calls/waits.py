"""How a guard waits between attempts; a test replaces it, and its waits cost nothing."""

import asyncio
import random
import time


class Waits:
    """Sleeps, and draws what is left to chance."""

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def sleep_async(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def chance(self) -> float:
        """At least 0, below 1."""
        return random.random()
