"""Lists and dicts of clients."""

import itertools

import relight
from anthropic import Anthropic, AnthropicBedrock

clients = {
    "safe": relight.guarded(Anthropic()),  # expect: client guarded
    "raw": AnthropicBedrock(),  # expect: client unguarded
}
clients["safe"].messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
clients["raw"].messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded

keys = ["a", "b"]
pool = [relight.guarded(Anthropic(api_key=key)) for key in keys]  # expect: client guarded
turn = itertools.cycle(pool)
pool[0].messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
next(turn).messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
for number, one in enumerate(pool):
    one.messages.create(model="m", max_tokens=number, messages=[])  # expect: call guarded

made = {}


def client_of(tenant):
    if tenant not in made:
        made[tenant] = Anthropic()  # expect: client unguarded
    return made[tenant]


client_of("t").messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded

grown = []
grown.append(Anthropic())  # expect: client unguarded
for one in grown:
    one.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
for name, one in clients.items():
    one.messages.create(model=name, max_tokens=1, messages=[])  # expect: call unguarded
