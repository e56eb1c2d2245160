"""self.client, in bases and in subclasses."""

import relight
from anthropic import AsyncAnthropic


class Base:
    def __init__(self, client=None):
        self.client = client or AsyncAnthropic()  # expect: client unguarded

    async def ask(self, text):
        return await self.client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unguarded


class Abstract:
    async def run(self):
        return await self.claude.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded


class Concrete(Abstract):
    def __init__(self):
        client = AsyncAnthropic()  # expect: client guarded
        self.claude = relight.guarded(client)


class Rewrapped:
    def __init__(self):
        self._client = AsyncAnthropic()  # expect: client guarded
        self._client = relight.guarded(self._client)

    async def ask(self):
        create = self._client.messages.create
        return await create(model="m", max_tokens=1, messages=[])  # expect: call guarded
