"""Nothing here calls anybody."""

from types import SimpleNamespace
from unittest import mock

import pytest


class StubMessages:
    async def create(self, *, model, max_tokens, messages):
        return SimpleNamespace(content=[], stop_reason="end_turn")


class StubClient:
    def __init__(self):
        self.messages = StubMessages()


@pytest.fixture
def client():
    return StubClient()


async def test_stub(client):
    await client.messages.create(model="m", max_tokens=1, messages=[])


async def test_mock(mocker):
    fake = mocker.patch("anthropic.AsyncAnthropic").return_value
    await fake.messages.create(model="m", max_tokens=1, messages=[])
    other = mock.create_autospec(object)
    other.messages.create(model="m", max_tokens=1, messages=[])
    namespace = SimpleNamespace(messages=SimpleNamespace(create=lambda **options: options))
    namespace.messages.create(model="m", max_tokens=1, messages=[])
