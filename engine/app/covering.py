"""What `relight coverage` asks for: sources read, and calls that were counted at run time."""

from collections.abc import Sequence
from pathlib import Path

from relight.engine.coverage.config import CoverageConfig
from relight.engine.coverage.models import Reader
from relight.engine.coverage.report import Advanced, Report, read_sources


def readers() -> list[Reader]:
    """One for each family of languages."""
    from relight.engine.coverage.python.reader import PythonReader  # no other command needs to know languages
    from relight.engine.coverage.typescript import TypeScriptReader

    return [PythonReader(), TypeScriptReader()]


def cover(paths: Sequence[Path], config: CoverageConfig, *, count_tests: bool, advanced: Advanced) -> Report:
    """Reads the sources under the paths; nothing of them is imported or run."""
    return read_sources(paths, config, readers(), count_tests=count_tests, advanced=advanced)
