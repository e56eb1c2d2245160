"""What a region's service runs for its fleet: hearing others, ruling, moving work."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from relight.engine.health.models import Check


def region_checks(region: str, failures: Mapping[str, str | None], now: datetime) -> Iterator[Check]:
    """By the names of its parts, each with what it waits for; nothing where there are none."""
    for name, failure in failures.items():
        part = Check(
            component="region", measurement="part", id=name, time=now, observed="waiting" if failure else "runs"
        )
        yield part.warned(failure, f"{name} of region {region} waits: {failure}")
