"""Guarded by a switch."""

import os

import relight
from anthropic import Anthropic

GUARD = os.environ.get("GUARD") == "1"
one = relight.guarded(Anthropic()) if GUARD else Anthropic()  # expect: client guarded, client unguarded
one.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded

two = Anthropic()  # expect: client unguarded
safe = relight.guarded(two)
chosen = safe if GUARD else two
chosen.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded

three = Anthropic(middleware=[relight.Guard(None)] if GUARD else [], max_retries=0)  # expect: client unguarded
three.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
