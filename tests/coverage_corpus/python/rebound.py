"""The same name, before and after."""

import relight
from anthropic import Anthropic

client = Anthropic()  # expect: client unguarded
client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
client = relight.guarded(client)
client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded


def later():
    return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded


def other():
    inner = Anthropic()  # expect: client guarded
    inner = relight.guarded(inner)
    return inner.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
