"""functools.partial of classes and guards."""

from functools import partial

import relight
from anthropic import Anthropic

make = partial(Anthropic, timeout=3)
guard = partial(relight.guarded, policy=None)

raw = make(max_retries=1)  # expect: client unguarded
raw.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
safe = guard(make())  # expect: client guarded
safe.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
