"""The SDK is optional."""

try:
    import anthropic
    from anthropic import AsyncAnthropic
except ImportError:
    anthropic = None
    AsyncAnthropic = None


def sync():
    if anthropic is None:
        raise RuntimeError("install anthropic")
    client = anthropic.Anthropic()  # expect: client unguarded
    return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


def late():
    from anthropic import Anthropic as Late

    return Late().messages.create(model="m", max_tokens=1, messages=[])  # expect: client unguarded, call unguarded


async def async_():
    return await AsyncAnthropic().messages.create(model="m", max_tokens=1, messages=[])  # expect: client unguarded, call unguarded
