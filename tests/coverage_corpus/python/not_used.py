"""Names that are there and lead to nothing."""

import anthropic
from anthropic import Anthropic, AnthropicError, AsyncAnthropic

KINDS = (Anthropic, AsyncAnthropic)


def is_client(thing) -> bool:
    return isinstance(thing, KINDS)


def explain(error: anthropic.APIStatusError) -> str:
    return f"{error.status_code}: {AnthropicError.__name__}"


def create(model, max_tokens, messages):
    return model, max_tokens, messages


create(model="m", max_tokens=1, messages=[])
anthropic.NotFoundError
print(Anthropic.__doc__)
