import relight
from anthropic import Anthropic

claude = relight.guarded(Anthropic())  # expect: client guarded
