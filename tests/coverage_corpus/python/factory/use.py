"""Uses them."""

from . import llm
from .llm import cached, either
from .llm import make_raw as build

raw = build(timeout=3)
raw.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


async def ask():
    await llm.make_safe().messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    await cached().messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    client = either(True)
    if client is not None:
        await client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
