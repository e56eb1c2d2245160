"""Globals that are filled later."""

import relight
from anthropic import Anthropic

_safe = None
_raw: Anthropic | None = None


def safe():
    global _safe
    if _safe is None:
        _safe = relight.guarded(Anthropic())  # expect: client guarded
    return _safe


def raw():
    global _raw
    if _raw is None:
        _raw = Anthropic()  # expect: client unguarded
    return _raw


class One:
    _instance = None

    def __new__(cls):
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __init__(self):
        self.client = relight.guarded(Anthropic())  # expect: client guarded


safe().messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
raw().messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
One().client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
