"""Newer syntax."""

import relight
from anthropic import Anthropic, AsyncAnthropic


def choose(kind):
    match kind:
        case "raw":
            return Anthropic()  # expect: client unguarded
        case "safe":
            return relight.guarded(Anthropic())  # expect: client guarded
        case _:
            raise ValueError(kind)


if client := Anthropic():  # expect: client unguarded
    client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded

choose("raw").messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


def of_any(thing):
    match thing:
        case {"client": Anthropic() as found}:
            return found.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
        case AsyncAnthropic() as found:
            return found.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown


of_any({"client": client})
