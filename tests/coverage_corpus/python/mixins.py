"""Attributes that only an annotation tells of, and classes mixed together."""

import relight
from anthropic import Anthropic, AsyncAnthropic
from attrs import Factory, define, field


class Asks:
    client: AsyncAnthropic

    async def ask(self):
        return await self.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded


class Keeps:
    def __init__(self, r):
        self.client = relight.guarded(AsyncAnthropic(), r)  # expect: client guarded


class Both(Asks, Keeps):
    pass


class Alone:
    claude: AsyncAnthropic

    async def ask(self):
        return await self.claude.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown


@define
class Attrs:
    client: Anthropic = Factory(Anthropic)  # expect: client unguarded
    other: Anthropic = field(factory=lambda: relight.guarded(Anthropic()))  # expect: client guarded

    def ask(self):
        self.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
        self.other.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
