"""Imported under other names."""

import anthropic as claude_sdk
from anthropic import Anthropic as Claude
from anthropic import AsyncAnthropic as AsyncClaude

one = Claude()  # expect: client unguarded
two = claude_sdk.AsyncAnthropic()  # expect: client unguarded
Again = AsyncClaude
three = Again()  # expect: client unguarded


async def ask():
    one.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
    await two.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
    await three.messages.count_tokens(model="m", messages=[])  # expect: call unguarded
