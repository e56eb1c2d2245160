"""What tests of the doctor share: settings of an installation, its examination, and what that may blame."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import stack

from relight.engine.app.looking import examine_installation
from relight.engine.doctor.models import Outcome, Report, Result
from relight.engine.embedded.nats import EmbeddedNats

NOT_HERE = {"durability"}
"""The tests' PostgreSQL does not fsync."""


def settings_of(nats: EmbeddedNats, database: str, home: Path, **changes: str) -> dict[str, str]:
    given = {
        "RELIGHT_NATS_URL": nats.url,
        "RELIGHT_NATS_MONITOR_URLS": nats.monitor_url,
        "RELIGHT_DATABASE_URL": database,
        "RELIGHT_HOME": str(home),
    }
    return {name: value for name, value in (given | changes).items() if value}


async def examined(environment: dict[str, str]) -> tuple[Report, dict[str, Result]]:
    report = await examine_installation(environment=environment)
    return report, {result.check: result for result in report.results}


def assert_only(results: dict[str, Result], *bad: str, skipped: tuple[str, ...] = ()) -> None:
    """Nothing else is blamed; what depends on them is skipped."""
    wrong = {name for name, result in results.items() if result.outcome in (Outcome.FAIL, Outcome.WARN)}
    assert wrong - NOT_HERE == set(bad), {name: results[name].found for name in wrong}
    assert {name for name, result in results.items() if result.outcome is Outcome.SKIPPED} == set(skipped)
    assert all(results[name].advice for name in wrong)


@pytest.fixture
def house() -> Iterator[Path]:
    with stack.folder() as folder:
        home = folder / "home"
        home.mkdir(mode=0o700)
        yield home


OF_POSTGRES = (
    "session",
    "postgres_clock",
    "durability",
    "timeouts",
    "connections",
    "migrations",
    "roles",
    "row_security",
    "tenancy",
)
OF_NATS = ("jetstream", "nats_clock", "stream", "publish", "content", "fsync")
