"""All of the SDK's names."""

from anthropic import *

client = Anthropic()  # expect: client unguarded
client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
