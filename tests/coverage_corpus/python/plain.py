"""The simplest program of all."""

import anthropic

client = anthropic.Anthropic()  # expect: client unguarded
message = client.messages.create(  # expect: call unguarded
    model="claude-opus-4-8",
    max_tokens=10,
    messages=[{"role": "user", "content": "hi"}],
)
print(message)
