"""What callers hand in, by position, by keyword, by default."""

import relight
from anthropic import Anthropic

DEFAULT = relight.guarded(Anthropic())  # expect: client guarded


def ask(client, text):
    return client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call guarded


def with_default(text, client=DEFAULT):
    return client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call guarded


def both(client):
    return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


def identity(client):
    client.timeout = 3
    return client


def spread(*args, **options):
    return options["client"].messages.create(model="m", max_tokens=1, messages=list(args))  # expect: call guarded


raw = Anthropic()  # expect: client unguarded
ask(DEFAULT, "x")
ask(text="y", client=DEFAULT)
both(DEFAULT)
both(raw)
identity(DEFAULT).messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
identity(raw).messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
spread("a", client=DEFAULT)
