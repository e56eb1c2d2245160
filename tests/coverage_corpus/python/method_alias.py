"""Methods and resources under names of their own."""

import functools

from anthropic import Anthropic, AsyncAnthropic

client = Anthropic()  # expect: client unguarded
create = client.messages.create
messages = client.messages
create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
ask = functools.partial(client.messages.create, model="m", max_tokens=1)
ask(messages=[])  # expect: call unguarded
getattr(client.messages, "create")(model="m", max_tokens=1, messages=[])  # expect: call unguarded


class Asker:
    def __init__(self):
        self.ask = AsyncAnthropic().messages.create  # expect: client unguarded

    async def run(self):
        return await self.ask(model="m", max_tokens=1, messages=[])  # expect: call unguarded
