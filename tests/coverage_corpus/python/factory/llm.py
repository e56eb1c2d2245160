"""Makes clients for the others."""

import functools

import relight
from anthropic import Anthropic, AsyncAnthropic


def make_raw(**options):
    return Anthropic(**options)  # expect: client unguarded


def make_safe(timeout_s=3):
    client = AsyncAnthropic(timeout=timeout_s)  # expect: client guarded
    return relight.guarded(client)


@functools.lru_cache(maxsize=1)
def cached():
    return make_safe()


def either(safe: bool):
    return make_safe() if safe else None
