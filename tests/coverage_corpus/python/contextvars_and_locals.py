"""Clients in context variables, thread locals, namespaces."""

import contextvars
import threading
import types
from contextvars import ContextVar

import relight
from anthropic import Anthropic, AsyncAnthropic

current: ContextVar[AsyncAnthropic] = ContextVar("current")
safe = contextvars.ContextVar("safe", default=relight.guarded(AsyncAnthropic()))  # expect: client guarded
local = threading.local()
space = types.SimpleNamespace(client=Anthropic(), name="x")  # expect: client unguarded


def begin():
    current.set(AsyncAnthropic())  # expect: client unguarded
    local.client = Anthropic()  # expect: client unguarded


async def ask():
    await current.get().messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
    await safe.get().messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    local.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
    space.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
