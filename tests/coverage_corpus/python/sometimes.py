"""Guarded on one way only is not guarded."""

import os

import relight
from anthropic import Anthropic


def client():
    made = Anthropic()  # expect: client unguarded
    if os.environ.get("GUARD"):
        made = relight.guarded(made)
    return made


def always():
    made = Anthropic()  # expect: client guarded
    if os.environ.get("SLOW"):
        made = relight.guarded(made, policy="slow")
    else:
        made = relight.guarded(made)
    return made


client().messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
always().messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
