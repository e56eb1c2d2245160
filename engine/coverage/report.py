"""What was found, most urgent first, and what it comes to."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from relight.engine.coverage.config import CoverageConfig
from relight.engine.coverage.finding_files import find_files
from relight.engine.coverage.models import Guarded, Kind, NotUnderstood, Reader, Site, SourceFile
from relight.engine.coverage.priorities import prioritized

URGENCY = (Guarded.NO, Guarded.UNKNOWN, Guarded.YES)

Advanced = Callable[[int, int], None]
"""How many files of how many were taken up."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """`sites` are all, in order of urgency: not guarded, not known, guarded; tests last in each."""

    sites: tuple[Site, ...]
    not_understood: tuple[NotUnderstood, ...]
    files: int
    """That were read."""
    count_tests: bool

    @property
    def calls(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if site.kind is Kind.CALL)

    @property
    def clients(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if site.kind is Kind.CLIENT)

    @property
    def counted(self) -> tuple[Site, ...]:
        """The calls that the percentage is of."""
        return tuple(site for site in self.calls if self.count_tests or not site.in_test)

    def count(self, guarded: Guarded) -> int:
        return sum(site.guarded is guarded for site in self.counted)

    @property
    def percent(self) -> float | None:
        """Of the counted calls those that surely are guarded; None where there is none."""
        return 100 * self.count(Guarded.YES) / len(self.counted) if self.counted else None

    @property
    def read_anything(self) -> bool:
        return self.files > 0

    def reaches(self, percent: float) -> bool:
        """Whether at least so much is guarded; where nothing is called, nothing is missing."""
        return self.percent is None or self.percent >= percent


def read_sources(
    paths: Sequence[Path],
    config: CoverageConfig,
    readers: Sequence[Reader],
    *,
    count_tests: bool = False,
    advanced: Advanced = lambda done, of: None,
) -> Report:
    """Finds the files, has them read, and puts what was found in order. Raises `CoverageError`."""
    files, not_understood = find_files(paths, config)
    sites: list[Site] = []
    done = 0

    def taken(of: Reader) -> Iterator[SourceFile]:
        nonlocal done
        for file in files:
            if file.language in of.languages:
                advanced(done, len(files))
                done += 1
                yield file

    for reader in readers:
        for one in reader.read(taken(reader), config):
            if isinstance(one, Site):
                sites.append(prioritized(one, config))
            else:
                not_understood.append(one)
    unread = {one.path for one in not_understood if one.line is None or one.path not in {s.path for s in sites}}
    return Report(
        sites=tuple(sorted(sites, key=_order)),
        not_understood=tuple(sorted(not_understood, key=lambda one: (one.path, one.line or 0))),
        files=len({file.path for file in files} - unread),
        count_tests=count_tests or config.count_tests,
    )


def _order(site: Site) -> tuple[int, int, str, int, int]:
    return (URGENCY.index(site.guarded), -site.priority, site.path, site.line, site.column)
