"""Tuples, stars, augmented lists, deletions."""

import relight
from anthropic import Anthropic


def two():
    return relight.guarded(Anthropic()), Anthropic()  # expect: client guarded, client unguarded


safe, raw = two()
safe.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
raw.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
safe, raw = raw, safe
raw.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded

middleware = []
middleware += [relight.Guard(None)]
third = Anthropic(max_retries=0, middleware=middleware)  # expect: client guarded
third.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded

later = []
later.append(relight.Guard(None))
fourth = Anthropic(max_retries=0, middleware=later)  # expect: client guarded
fourth.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
