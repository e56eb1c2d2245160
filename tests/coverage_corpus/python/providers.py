"""One of several providers behind an abstract class."""

from abc import ABC, abstractmethod

import relight
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI


class Provider(ABC):
    @abstractmethod
    async def complete(self, prompt: str) -> str: ...


class ClaudeProvider(Provider):
    def __init__(self, api_key: str, *, guarded: bool = False):
        self._client = AsyncAnthropic(api_key=api_key)  # expect: client unguarded

    async def complete(self, prompt: str) -> str:
        reply = await self._client.messages.create(model="m", max_tokens=1, messages=[prompt])  # expect: call unguarded
        return reply.content[0].text


class SafeClaudeProvider(ClaudeProvider):
    def __init__(self, api_key: str, r: relight.Relight):
        self._safe = r.guarded(AsyncAnthropic(api_key=api_key))  # expect: client guarded

    async def complete(self, prompt: str) -> str:
        async with self._safe.messages.stream(model="m", max_tokens=1, messages=[prompt]) as s:  # expect: call guarded
            return await s.get_final_text()


class OpenAIProvider(Provider):
    def __init__(self, api_key: str):
        self._client = AsyncOpenAI(api_key=api_key)

    async def complete(self, prompt: str) -> str:
        reply = await self._client.chat.completions.create(model="m", max_tokens=1, messages=[prompt])
        return reply.choices[0].message.content


PROVIDERS = {"claude": ClaudeProvider, "safe": SafeClaudeProvider, "openai": OpenAIProvider}


async def run(name, config, prompt):
    provider = PROVIDERS[name](**config)
    return await provider.complete(prompt)
