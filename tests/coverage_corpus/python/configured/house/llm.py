from acme_guard import wrap
from anthropic import Anthropic


def hidden_magic(made):
    return made


client = hidden_magic(Anthropic())  # expect: client guarded


def safe(**options):
    return hidden_magic(Anthropic(**options))  # expect: client guarded


class SafeClient:
    def __init__(self, key):
        self.key = key


wrapped = wrap(Anthropic())  # expect: client guarded
