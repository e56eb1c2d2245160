"""What is kept of a stream while it is read: its bytes only where they are recorded, or hooks are to see them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from guarding import NOON, Both, idle_recorder

from relight.engine.clock import ScriptedClock
from relight.engine.fake.server import FakeAnthropic
from relight.engine.guard.facts import Attempt, Call
from relight.engine.guard.guard import Guard
from relight.engine.guard.recording.journal import Journal
from relight.engine.settings import ContentPolicy


def unchanged(kind: str, document: Any) -> Any:
    return document


class Seen(Journal):
    """Remembers the last attempt as it was handed over."""

    def known(self, call: Call, attempt: Attempt | None) -> None:
        assert attempt is not None
        self.body, self.digest, self.size_bytes = attempt.body, attempt.body_sha256, attempt.body_bytes
        super().known(call, attempt)


@pytest_asyncio.fixture(params=["sync", "async"])
async def both(request: pytest.FixtureRequest) -> AsyncIterator[Both]:
    clients = Both(request.param == "async")
    yield clients
    await clients.close()


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ({"content": ContentPolicy.DIGEST}, False),
        ({"content": ContentPolicy.NONE, "redact": [unchanged]}, False),
        ({"content": ContentPolicy.DIGEST, "redact": [unchanged]}, True),
        ({"content": ContentPolicy.FULL}, True),
    ],
    ids=["digest", "none", "digest of what hooks leave", "full"],
)
async def test_a_streams_bytes_are_kept_only_where_they_are_needed(both: Both, how: dict[str, Any], kept: bool) -> None:
    async with FakeAnthropic() as fake:
        with idle_recorder(ScriptedClock(NOON)) as recorder:
            journal = Seen(recorder, **how)
            client = both.client(fake, Guard(recorder, journal=journal))
            assert await both.streamed(client)
    assert (journal.body is not None) is kept
    assert journal.digest is not None
    assert journal.size_bytes == len(journal.body) if journal.body is not None else (journal.size_bytes or 0) > 100
