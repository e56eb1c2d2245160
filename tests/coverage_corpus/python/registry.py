"""A container that is asked for a class."""

import punq
import relight
from anthropic import Anthropic, AsyncAnthropic

container = punq.Container()
container.register(AsyncAnthropic, factory=lambda: relight.guarded(AsyncAnthropic()))  # expect: client guarded
container.register(Anthropic, instance=Anthropic())  # expect: client unguarded


async def ask():
    await container.resolve(AsyncAnthropic).messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    container.resolve(Anthropic).messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
