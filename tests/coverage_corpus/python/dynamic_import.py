"""Names as strings."""

import importlib
import sys

sdk = importlib.import_module("anthropic")
one = sdk.Anthropic()  # expect: client unguarded
one.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded

two = getattr(sdk, "AsyncAnthropic")()  # expect: client unguarded
three = __import__("anthropic").Anthropic()  # expect: client unguarded
getattr(three, "messages").create(model="m", max_tokens=1, messages=[])  # expect: call unguarded

NAME = "AnthropicBedrock"
four = getattr(importlib.import_module("anthropic"), NAME)()  # expect: client unguarded
five = sys.modules["anthropic"].Anthropic()  # expect: client unguarded
