import relight
from anthropic import Anthropic

raw = Anthropic()  # expect: client unguarded
safe = relight.guarded(raw)
