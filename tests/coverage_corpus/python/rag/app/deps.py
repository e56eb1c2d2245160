"""What the application is put together of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import relight
from anthropic import AsyncAnthropic, AsyncAnthropicBedrock


@dataclass(slots=True)
class Deps:
    claude: AsyncAnthropic
    cheap: AsyncAnthropicBedrock
    settings: dict[str, str]


@asynccontextmanager
async def make_deps(settings) -> AsyncIterator[Deps]:
    async with relight.open(region=settings["region"]) as r:
        claude = r.guarded(AsyncAnthropic(api_key=settings["key"]))  # expect: client guarded
        cheap = AsyncAnthropicBedrock(aws_region=settings["region"])  # expect: client unguarded
        yield Deps(claude, cheap=cheap, settings=settings)
