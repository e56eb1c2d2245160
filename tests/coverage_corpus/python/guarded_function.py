"""Guarded as the README does it."""

import asyncio

import relight
from anthropic import AsyncAnthropic


async def main() -> None:
    async with relight.open(region="eu") as r:
        claude = r.guarded(AsyncAnthropic())  # expect: client guarded
        await claude.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
        other = relight.guarded(AsyncAnthropic(timeout=3), policy=None)  # expect: client guarded
        async with other.messages.stream(model="m", max_tokens=1, messages=[]) as stream:  # expect: call guarded
            async for text in stream.text_stream:
                print(text)


asyncio.run(main())
