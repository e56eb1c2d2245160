"""Less common ways to have a class."""

import abc
import functools
from typing import Self

import relight
from anthropic import Anthropic


class Once(type):
    _made = {}

    def __call__(cls, *args, **kwargs):
        if cls not in cls._made:
            cls._made[cls] = super().__call__(*args, **kwargs)
        return cls._made[cls]


class Service(metaclass=Once):
    __slots__ = ("client",)

    def __init__(self):
        self.client = Anthropic()  # expect: client unguarded


class Parsed(abc.ABC):
    def __init__(self, client):
        self._client = client

    @classmethod
    def with_guard(cls, r) -> Self:
        return cls(relight.guarded(Anthropic(), r))  # expect: client guarded

    @functools.cached_property
    def messages(self):
        return self._client.messages

    def ask(self, text):
        return self.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call guarded


Service().client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
Parsed.with_guard(None).ask("x")
