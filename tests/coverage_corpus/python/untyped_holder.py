"""An object that was handed in, with a client inside."""

from anthropic import Anthropic


class Context:
    def __init__(self):
        self.claude = Anthropic()  # expect: client unguarded


def ask(ctx, text):
    return ctx.claude.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unguarded
