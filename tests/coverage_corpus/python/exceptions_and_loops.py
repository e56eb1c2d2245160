"""Clients made in tries and loops."""

import relight
from anthropic import Anthropic, AnthropicBedrock


def first_that_works(keys):
    for key in keys:
        try:
            client = Anthropic(api_key=key)  # expect: client unguarded
            return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
        except ValueError:
            continue
    else:
        client = relight.guarded(AnthropicBedrock())  # expect: client guarded
        return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded


def until_done():
    client = None
    while True:
        if client is None:
            client = relight.guarded(Anthropic())  # expect: client guarded
        if client.messages.create(model="m", max_tokens=1, messages=[]):  # expect: call guarded
            break
    try:
        client = Anthropic()  # expect: client unguarded
    finally:
        client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
