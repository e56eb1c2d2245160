"""All the SDK's clients."""

import anthropic
from anthropic import (
    Anthropic,
    AnthropicAWS,
    AnthropicBedrock,
    AnthropicBedrockMantle,
    AnthropicFoundry,
    AnthropicGoogleCloud,
    AnthropicVertex,
    AsyncAnthropic,
    AsyncAnthropicAWS,
    AsyncAnthropicBedrock,
    AsyncAnthropicBedrockMantle,
    AsyncAnthropicFoundry,
    AsyncAnthropicGoogleCloud,
    AsyncAnthropicVertex,
)

Anthropic().messages.create(model="m", max_tokens=1, messages=[])  # expect: client unguarded, call unguarded
AnthropicAWS()  # expect: client unguarded
AnthropicBedrock()  # expect: client unguarded
AnthropicBedrockMantle()  # expect: client unguarded
AnthropicFoundry()  # expect: client unguarded
AnthropicGoogleCloud()  # expect: client unguarded
AnthropicVertex()  # expect: client unguarded
AsyncAnthropic()  # expect: client unguarded
AsyncAnthropicAWS()  # expect: client unguarded
AsyncAnthropicBedrock()  # expect: client unguarded
AsyncAnthropicBedrockMantle()  # expect: client unguarded
AsyncAnthropicFoundry()  # expect: client unguarded
AsyncAnthropicGoogleCloud()  # expect: client unguarded
AsyncAnthropicVertex()  # expect: client unguarded
anthropic.Client()  # expect: client unguarded
anthropic.AsyncClient()  # expect: client unguarded
