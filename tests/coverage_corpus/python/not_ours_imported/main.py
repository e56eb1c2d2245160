from vendor import Anthropic
from vendor import Client as AsyncAnthropic

Anthropic().messages.create(model="m", max_tokens=1, messages=[])
AsyncAnthropic().messages.stream(model="m", max_tokens=1, messages=[])
