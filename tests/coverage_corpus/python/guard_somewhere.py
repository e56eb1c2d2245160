"""A Guard that is built elsewhere in the file, in other ways."""

import relight as rl
from anthropic import Anthropic, AsyncAnthropic
from relight import Guard as G
from relight import guarded as protect


class App:
    guard = None

    def __init__(self, recorder):
        self.guard = G(recorder)
        self.client = Anthropic(middleware=(self.guard,), max_retries=0)  # expect: client guarded
        self.plain = Anthropic(middleware=None)  # expect: client unguarded

    def ask(self):
        self.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
        self.plain.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded

    def make(self, kind):
        return {"sync": Anthropic, "async": AsyncAnthropic}[kind](middleware=[self.guard], max_retries=0)  # expect: client guarded


def guards(recorder, names):
    return [rl.Guard(recorder, provider=name) for name in names]


def first(recorder):
    return protect(client=Anthropic(), r=recorder).messages.create(model="m", max_tokens=1, messages=[])  # expect: client guarded, call guarded


many = Anthropic(middleware=guards(None, ["a"]), max_retries=0)  # expect: client guarded
many.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
App(None).make("sync").messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
