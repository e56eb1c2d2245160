"""Structured concurrency."""

import asyncio

import anyio
import relight
from anthropic import AsyncAnthropic


async def ask(client, text):
    return await client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call guarded


async def ask_raw(client: AsyncAnthropic, text: str):
    return await client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unguarded


async def main():
    async with relight.open() as r, AsyncAnthropic() as raw:  # expect: client unguarded
        safe = r.guarded(raw)
        async with asyncio.TaskGroup() as group:
            for text in "ab":
                group.create_task(ask(safe, text))
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(ask_raw, raw, "c")
            nursery.start_soon(ask, safe, "d")


anyio.run(main)
