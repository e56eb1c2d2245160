"""A class that comes from Guard, and a function called guarded that does not."""

from anthropic import Anthropic
from relight import Guard


class Watched(Guard):
    def handle(self, request, call_next):
        return super().handle(request, call_next)


def guarded(client):
    """Not Relight's: it only says so."""
    return client


def Guardian():
    return None


safe = Anthropic(max_retries=0, middleware=[Watched(None)])  # expect: client guarded
safe.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
raw = guarded(Anthropic())  # expect: client unguarded
raw.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
other = Anthropic(middleware=[Guardian()])  # expect: client unguarded
other.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
