from anthropic import AsyncAnthropic
from relight import guarded

raw = AsyncAnthropic()  # expect: client unguarded
claude = guarded(AsyncAnthropic())  # expect: client guarded
