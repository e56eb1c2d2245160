"""Nobody here says what these are."""

from typing import Optional, TYPE_CHECKING

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic


async def typed(client: "AsyncAnthropic", text: str):
    return await client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unknown


async def untyped(client, text):
    return await client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unknown


class Worker:
    def __init__(self, client: "Optional[AsyncAnthropic]" = None):
        self.client = client

    async def run(self):
        async with self.client.messages.stream(model="m", max_tokens=1, messages=[]) as s:  # expect: call unknown
            return s


def commented(client, text):
    # type: (AsyncAnthropic, str) -> None
    client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unknown
