"""Context managers."""

from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import relight
from anthropic import Anthropic, AsyncAnthropic


@contextmanager
def safe_client():
    with Anthropic() as client:  # expect: client guarded
        yield relight.guarded(client)


@asynccontextmanager
async def raw_client():
    async with AsyncAnthropic() as client:  # expect: client unguarded
        yield client


class Holder:
    def __enter__(self):
        return Anthropic()  # expect: client unguarded

    def __exit__(self, *exc):
        return None


def one():
    with Anthropic() as client:  # expect: client unguarded
        client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
    with safe_client() as safe:
        safe.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    with Holder() as held:
        held.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


async def two():
    async with raw_client() as raw, relight.guarded(AsyncAnthropic()) as safe:  # expect: client guarded
        await raw.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
        await safe.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncAnthropic())  # expect: client unguarded
        await client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
