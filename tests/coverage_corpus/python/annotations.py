"""Types that say what something is, and values that say it better."""

from __future__ import annotations

from typing import Any, cast

import relight
from anthropic import Anthropic

registry: dict[str, Any] = {}


def load(name) -> Anthropic:
    return registry[name]


def raw_by_cast(thing):
    client = cast(Anthropic, thing.inner)
    return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown


def narrowed(thing):
    if isinstance(thing, Anthropic):
        return thing.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown
    return None


load("x").messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown
client: Anthropic = relight.guarded(Anthropic())  # expect: client guarded
client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
legacy = load("y")  # type: Anthropic
legacy.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown
