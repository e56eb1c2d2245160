"""Clients that a Guard falls back to are called by it."""

import relight
from anthropic import AsyncAnthropic, AsyncAnthropicBedrock, AsyncAnthropicVertex

bedrock = AsyncAnthropicBedrock()  # expect: client guarded
claude = relight.guarded(
    AsyncAnthropic(),  # expect: client guarded
    fallbacks=[
        relight.Fallback(client=bedrock, reason="region lost"),
        relight.Fallback(client=AsyncAnthropicVertex(region="eu", project_id="p")),  # expect: client guarded
    ],
)


async def ask():
    return await claude.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
