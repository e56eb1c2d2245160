"""From packages that are not among the files."""

from acme_llm import claude, make_client
from acme_llm.settings import client_options
from anthropic import AsyncAnthropic


async def ask():
    await claude.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown
    await make_client().messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown
    client = AsyncAnthropic(**client_options())  # expect: client unknown
    await client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown
