"""What `relight coverage` asks for: sources read, and calls that were counted at run time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from relight.engine.app.connections import clock
from relight.engine.app.tables import ask
from relight.engine.coverage.config import CoverageConfig
from relight.engine.coverage.models import Reader
from relight.engine.coverage.report import Advanced, Report, read_sources
from relight.engine.coverage.runtime import Seen
from relight.engine.settings import Settings
from relight.projections.model_calls import CallSite
from relight.projections.query import MAX_LIMIT

LOOKED_BACK = timedelta(days=30)


def readers() -> list[Reader]:
    """One for each family of languages."""
    from relight.engine.coverage.python.reader import PythonReader  # no other command needs to know languages
    from relight.engine.coverage.typescript import TypeScriptReader

    return [PythonReader(), TypeScriptReader()]


def cover(paths: Sequence[Path], config: CoverageConfig, *, count_tests: bool, advanced: Advanced) -> Report:
    """Reads the sources under the paths; nothing of them is imported or run."""
    return read_sources(paths, config, readers(), count_tests=count_tests, advanced=advanced)


async def seen_calls(settings: Settings, *, tenant: str | None = None, since: datetime | None = None) -> list[Seen]:
    """What was counted of a tenant and of the platform, by place; of the last 30 days where nobody says since when."""
    arguments = {"since": since or clock().now() - LOOKED_BACK}
    rows = await ask(
        settings, "decisions.call_sites", tenant=tenant or settings.tenant, limit=MAX_LIMIT, arguments=arguments
    )
    counted: dict[str, tuple[int, int]] = {}
    for row in rows:
        assert isinstance(row, CallSite)
        guarded, raw = counted.get(row.site, (0, 0))
        counted[row.site] = (guarded + row.calls, raw) if row.guarded else (guarded, raw + row.calls)
    return [Seen(site, guarded, raw) for site, (guarded, raw) in counted.items()]
