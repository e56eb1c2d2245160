"""Wrappers that hand everything on."""

import relight
from anthropic import Anthropic


class Logged:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        print(name)
        return getattr(self._inner, name)


class Called:
    def __init__(self, client):
        self.client = client

    def __call__(self, text):
        return self.client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call guarded


logged = Logged(Anthropic())  # expect: client unguarded
logged.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
ask = Called(relight.guarded(Anthropic()))  # expect: client guarded
ask("x")
