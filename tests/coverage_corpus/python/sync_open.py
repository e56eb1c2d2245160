"""Without a loop, and Relight handed on."""

import relight
from anthropic import Anthropic


def build(r: relight.SyncRelight):
    return r.guarded(Anthropic())  # expect: client guarded


def guess(thing):
    return thing.guarded(Anthropic())  # expect: client unknown


with relight.open_sync() as r:
    client = build(r)
    client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    other = guess(object())
    other.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown
