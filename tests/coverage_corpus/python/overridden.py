"""Methods that subclasses replace."""

import relight
from anthropic import Anthropic


class Base:
    def make_client(self):
        return Anthropic()  # expect: client unguarded

    def ask(self):
        return self.make_client().messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


class Safe(Base):
    def make_client(self):
        return relight.guarded(super().make_client())


class Bare(Base):
    @property
    def client(self):
        return relight.guarded(self.make_client())

    def twice(self):
        return self.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded


Safe().ask()
Base().ask()
