"""Typed dictionaries, optional values, early returns."""

from typing import NotRequired, TypedDict

import relight
from anthropic import Anthropic


class Tools(TypedDict):
    client: Anthropic
    spare: NotRequired[Anthropic]


def make() -> Tools:
    return {"client": relight.guarded(Anthropic())}  # expect: client guarded


def ask(tools: Tools):
    return tools["client"].messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded


def pick(name: str) -> Anthropic | None:
    if name == "none":
        return None
    if name == "raw":
        return Anthropic()  # expect: client unguarded
    raise KeyError(name)


ask(make())
if (client := pick("raw")) is None:
    raise SystemExit(1)
client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
