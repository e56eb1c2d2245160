"""A Guard among the middleware."""

from anthropic import Anthropic
from relight import Guard, open_sync

with open_sync() as r:
    client = Anthropic(max_retries=0, middleware=[Guard(r)])  # expect: client guarded
    client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    hasty = Anthropic(middleware=[Guard(r)])  # expect: client guarded warned
    hasty.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded warned
