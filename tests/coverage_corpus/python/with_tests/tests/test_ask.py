from unittest.mock import AsyncMock, MagicMock, patch

from anthropic import Anthropic
from app.ask import ask, only_tested


class Fake:
    class messages:
        @staticmethod
        def create(**options):
            return options


def test_with_a_real_client():
    client = Anthropic(base_url="http://127.0.0.1:1")  # expect: client unguarded
    ask(client, "x")
    only_tested(client)
    client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


def test_with_a_mock():
    mock = MagicMock()
    mock.messages.create(model="m", max_tokens=1, messages=[])
    ask(mock, "x")
    ask(Fake(), "x")
    Fake().messages.create(model="m", max_tokens=1, messages=[])
    with patch("app.ask.Anthropic") as made:
        made.return_value.messages.create(model="m", max_tokens=1, messages=[])
    AsyncMock(spec=Anthropic).messages.create.assert_not_called()
