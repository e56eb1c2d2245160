"""Copies of clients."""

import relight
from anthropic import Anthropic

safe = relight.guarded(Anthropic())  # expect: client guarded
raw = Anthropic()  # expect: client unguarded

safe.with_options(timeout=3).messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
safe.copy().messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
stripped = safe.with_options(middleware=[])
stripped.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
raw.with_options(timeout=3).messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


def by_hand(recorder):
    guard = relight.Guard(recorder)
    made = Anthropic(max_retries=0)  # expect: client guarded
    mine = made.with_middleware(guard)
    mine.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    more = safe.with_options(middleware=[*safe.middleware, print])
    more.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    restless = safe.with_options(max_retries=4)
    restless.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded warned
