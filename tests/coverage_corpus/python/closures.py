"""Closures, decorators, lambdas."""

import functools

import relight
from anthropic import Anthropic


def asker():
    client = Anthropic()  # expect: client unguarded

    def ask(text):
        return client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unguarded

    return ask


def with_client(function):
    @functools.wraps(function)
    def inner(*args):
        return function(relight.guarded(Anthropic()), *args)  # expect: client guarded

    return inner


@with_client
def injected(client, text):
    return client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call guarded


make = lambda: Anthropic()  # expect: client unguarded
ask = lambda text: make().messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unguarded
asker()("x")
injected("x")


def counter():
    client = None

    def connect():
        nonlocal client
        client = relight.guarded(Anthropic())  # expect: client guarded

    def ask():
        connect()
        return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded

    return ask
