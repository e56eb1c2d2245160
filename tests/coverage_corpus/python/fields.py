"""Dataclasses, models, class attributes, properties."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

import relight
from anthropic import Anthropic, AsyncAnthropic
from pydantic import BaseModel, Field


@dataclass
class Service:
    client: Anthropic = field(default_factory=Anthropic)  # expect: client unguarded
    safe: Anthropic = field(default_factory=lambda: relight.guarded(Anthropic()))  # expect: client guarded

    def ask(self):
        self.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
        self.safe.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded


@dataclass
class Given:
    name: str
    client: AsyncAnthropic

    async def ask(self):
        return await self.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded


class Model(BaseModel):
    client: AsyncAnthropic = Field(default_factory=AsyncAnthropic)  # expect: client unguarded

    async def ask(self):
        return await self.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


class Shared:
    client: ClassVar = relight.guarded(Anthropic())  # expect: client guarded

    @classmethod
    def ask(cls):
        return cls.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded


class Lazy:
    @cached_property
    def client(self):
        return AsyncAnthropic()  # expect: client unguarded

    async def ask(self):
        return await self.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


class Pair(NamedTuple):
    fast: Anthropic
    slow: Anthropic


given = Given("x", relight.guarded(AsyncAnthropic()))  # expect: client guarded
pair = Pair(relight.guarded(Anthropic()), slow=Anthropic())  # expect: client guarded, client unguarded
pair.fast.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
pair.slow.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
Shared.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
