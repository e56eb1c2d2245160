"""Methods handed to something that calls them."""

import asyncio

import tenacity
from anthropic import Anthropic, AsyncAnthropic

client = Anthropic()  # expect: client unguarded
aclient = AsyncAnthropic()  # expect: client unguarded


def retry(function, *args, **options):
    for _ in range(3):
        try:
            return function(*args, **options)  # expect: call unguarded
        except Exception:
            continue


retry(client.messages.create, model="m", max_tokens=1, messages=[])


async def elsewhere():
    await asyncio.to_thread(client.messages.create, model="m", max_tokens=1, messages=[])  # expect: call unguarded
    await asyncio.wait_for(aclient.messages.create(model="m", max_tokens=1, messages=[]), 3)  # expect: call unguarded
    calls = [aclient.messages.create(model="m", max_tokens=1, messages=[t]) for t in "ab"]  # expect: call unguarded
    await asyncio.gather(*calls)


@tenacity.retry(stop=tenacity.stop_after_attempt(3))
def decorated():
    return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


patient = tenacity.retry(client.messages.create)
patient(model="m", max_tokens=1, messages=[])  # expect: call unguarded
