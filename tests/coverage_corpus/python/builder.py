"""A builder, and a settings object."""

import relight
from anthropic import Anthropic
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    api_key: str = ""
    timeout_s: float = 30

    def client(self) -> Anthropic:
        return Anthropic(api_key=self.api_key, timeout=self.timeout_s)  # expect: client unguarded


class Builder:
    def __init__(self):
        self._options = {}
        self._guard = None

    def timeout(self, seconds):
        self._options["timeout"] = seconds
        return self

    def build(self):
        client = Anthropic(**self._options)  # expect: client guarded
        return relight.guarded(client)


settings = Settings()
settings.client().messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
built = Builder().timeout(3).build()
built.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
