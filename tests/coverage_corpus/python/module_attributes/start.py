import llm
import relight
from anthropic import Anthropic

llm.client = relight.guarded(Anthropic())  # expect: client guarded
