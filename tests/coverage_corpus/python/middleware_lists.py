"""Middleware by way of variables and concatenations."""

import time

from anthropic import AsyncAnthropic
from relight import Guard


async def log(request, call_next):
    print(time.time())
    return await call_next(request)


def build(recorder):
    guard = Guard(recorder)
    ours = [guard]
    both = [log] + ours
    spread = [log, *ours]
    one = AsyncAnthropic(max_retries=0, middleware=both)  # expect: client guarded
    two = AsyncAnthropic(max_retries=0, middleware=spread)  # expect: client guarded
    three = AsyncAnthropic(middleware=[log])  # expect: client unguarded
    options = {"max_retries": 0, "middleware": (guard,)}
    four = AsyncAnthropic(**options)  # expect: client guarded
    return one, two, three, four


async def ask(recorder):
    one, two, three, four = build(recorder)
    await one.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    await two.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    await three.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
    await four.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
