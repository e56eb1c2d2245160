"""Libraries that put something around a client."""

import instructor
import relight
from anthropic import Anthropic
from langsmith.wrappers import wrap_anthropic

traced = wrap_anthropic(Anthropic())  # expect: client unguarded
traced.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
safe = wrap_anthropic(relight.guarded(Anthropic()))  # expect: client guarded
safe.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
typed = instructor.from_anthropic(relight.guarded(Anthropic()))  # expect: client guarded
typed.messages.create(model="m", max_tokens=1, messages=[], response_model=dict)  # expect: call guarded
