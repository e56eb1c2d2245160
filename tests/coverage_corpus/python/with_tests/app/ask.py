"""Tests hand in clients of their own; that says nothing of this."""

import relight
from anthropic import Anthropic


def ask(client, text):
    return client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call guarded


def main():
    return ask(relight.guarded(Anthropic()), "x")  # expect: client guarded


def only_tested(client):
    return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown
