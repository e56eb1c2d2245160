"""Classes that come from the SDK's."""

import relight
from anthropic import Anthropic, AsyncAnthropic


class Ours(Anthropic):
    pass


class Timed(AsyncAnthropic):
    def __init__(self, **options):
        super().__init__(timeout=3, **options)

    async def ask(self, text):
        return await self.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unguarded


class Safe(Anthropic):
    def __init__(self, recorder):
        super().__init__(max_retries=0, middleware=[relight.Guard(recorder)])

    def ask(self, text):
        return self.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call guarded


class Safer(Safe):
    """Once more."""


ours = Ours()  # expect: client unguarded
ours.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
timed = Timed()  # expect: client unguarded
safe = Safer(None)  # expect: client guarded
safe.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
safe.ask("x")
