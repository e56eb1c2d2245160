"""Settings of the agent."""

import os

from relight import Guard

MODEL = os.environ.get("MODEL", "claude-opus-4-8")


def middleware(recorder):
    return [Guard(recorder)]
