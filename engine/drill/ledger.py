"""What processes were told of each event and task, written down outside their regions' disks before they go on."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import orjson
from pydantic import JsonValue


class Kind(StrEnum):
    """What a line tells."""

    OPENED = "opened"
    """publisher"""
    ASKED = "asked"
    """ids about to be recorded"""
    TOOK = "took"
    """the longest record() of a burst, in seconds"""
    SPOOLED = "spooled"
    """id and number of each"""
    REPLICATED = "replicated"
    """ids"""
    REFUSED = "refused"
    """ids"""
    SUBMITTED = "submitted"
    """tasks whose submission was acknowledged"""
    EFFECT = "effect"
    """task, epoch, step: what was done outside"""
    DONE = "done"
    """task and epoch whose function returned"""


class Ledger:
    """Of one process. A line lies in the kernel's hands, which outlives the process; `sync` has the disk have it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._synced = True

    def write(self, kind: Kind, entries: Iterable[JsonValue]) -> None:
        os.write(self._file, orjson.dumps([kind, time.monotonic(), list(entries)]) + b"\n")
        self._synced = False

    def sync(self) -> None:
        """Blocks; of a whole group at once."""
        if not self._synced:
            self._synced = True
            os.fsync(self._file)

    def close(self) -> None:
        self.sync()
        os.close(self._file)


@dataclass
class Told:
    """All ledgers together. Times are of the machine's monotonic clock, which its processes share."""

    asked: dict[str, str] = field(default_factory=dict)
    """Every event that was tried, and its region: nothing else may stand on the stream."""
    spooled: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By id: which ledger, and its number."""
    replicated: dict[str, float] = field(default_factory=dict)
    """By id: when that was told."""
    refused: set[str] = field(default_factory=set)
    submitted: set[str] = field(default_factory=set)
    took: list[tuple[float, float, str]] = field(default_factory=list)
    """When, how long the longest record() of a burst took, and in which region."""
    acknowledged: list[tuple[float, str]] = field(default_factory=list)
    """When something was told replicated, and in which region."""
    spooling: list[tuple[float, str, int]] = field(default_factory=list)
    """When something was told spooled, in which region, and how much."""
    effects: list[tuple[str, int, str]] = field(default_factory=list)
    """Task, epoch, step."""

    @classmethod
    def read(cls, folder: Path) -> "Told":
        """Of all `<region>.<n>.ledger` in a folder."""
        told = cls()
        for path in sorted(folder.glob("*.ledger")):
            region = path.name.split(".")[0]
            # Of a process killed while it wrote, the last line may be half there.
            for line in path.read_bytes().split(b"\n")[:-1]:
                kind, at_s, entries = orjson.loads(line)
                told._take(Kind(kind), at_s, entries, region, path.stem)
        told.took.sort()
        told.acknowledged.sort()
        told.spooling.sort()
        return told

    def _take(self, kind: Kind, at_s: float, entries: list[object], region: str, ledger: str) -> None:
        match kind:
            case Kind.OPENED | Kind.DONE:
                pass
            case Kind.ASKED:
                self.asked |= dict.fromkeys(map(str, entries), region)
            case Kind.TOOK:
                self.took += [(at_s, one, region) for one in entries if isinstance(one, float)]
            case Kind.SPOOLED:
                for entry in entries:
                    assert isinstance(entry, list)
                    self.spooled[entry[0]] = (ledger, entry[1])
                self.spooling.append((at_s, region, len(entries)))
            case Kind.REPLICATED:
                self.replicated |= dict.fromkeys(map(str, entries), at_s)
                self.acknowledged.append((at_s, region))
            case Kind.REFUSED:
                self.refused.update(map(str, entries))
            case Kind.SUBMITTED:
                self.submitted.update(map(str, entries))
            case Kind.EFFECT:
                for entry in entries:
                    assert isinstance(entry, list)
                    self.effects.append((entry[0], entry[1], entry[2]))
