"""The first reading of a file, which records nothing: whose rows these are, how many, and what is malformed."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from relight.engine.clock import Clock
from relight.engine.importers.identity import Entry, Format, Identity, Malformed, Owner
from relight.events.base import Control

MAX_LISTED = 1_000
"""Malformed rows listed of a file; all of them are counted."""


@dataclass(kw_only=True)
class Scan:
    """What was found. `events` are observations, `rulings` are counted apart; `key` is the row's where that is one."""

    path: Path
    identity: Identity
    rows: int = 0
    events: int = 0
    rulings: int = 0
    key: str | None = None
    malformed_rows: int = 0
    malformed: list[Malformed] = field(default_factory=list)

    def entries(self, clock: Clock) -> Iterator[Entry]:
        """Reads the file once more. Raises `ImportRefused`."""
        return (e for e in self.identity.format.read(self.path, clock.now()) if not isinstance(e, Malformed))


def scan(path: Path, format: Format, owner: Owner, *, clock: Clock) -> Scan:
    """Raises `ImportRefused`."""
    found = Scan(path=path, identity=Identity(format, owner))
    for entry in format.read(path, clock.now()):
        if isinstance(entry, Malformed):
            found.malformed_rows += 1
            if len(found.malformed) < MAX_LISTED:
                found.malformed.append(entry)
            continue
        key = found.identity.key(entry)
        facts = entry.facts(key)
        rulings = sum(isinstance(fact.event, Control) for fact in facts)
        found.rows += 1
        found.events += len(facts) - rulings
        found.rulings += rulings
        found.key = key if format.one_a_file else None
        found.identity.add(entry)
    return found
