"""What publishers were told of each event, written down before they go on; a SIGKILL takes none of it away."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson


class Ledger:
    """Of one publisher's process. A line that was written lies in the kernel's hands, which outlives the process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, kind: str, entries: Iterable[Sequence[object]]) -> None:
        os.write(self._file, orjson.dumps([kind, list(entries)]) + b"\n")


@dataclass
class Told:
    """All ledgers of a scene together."""

    asked: set[str] = field(default_factory=set)
    """Every event that was tried: nothing else may stand on the stream."""
    spooled: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By id: publisher and number."""
    replicated: set[str] = field(default_factory=set)
    projected: set[str] = field(default_factory=set)
    contents: dict[str, str] = field(default_factory=dict)
    """By the id of the event that refers to it: its SHA-256."""
    won: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Rulings that were appended, by id: subject and revision."""
    superseded: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, folder: Path) -> "Told":
        told = cls()
        for path in sorted(folder.glob("*.ledger")):
            # Of a process killed while it wrote, the last line may be half there.
            for line in path.read_bytes().split(b"\n")[:-1]:
                kind, entries = orjson.loads(line)
                told._take(kind, entries)
        return told

    def _take(self, kind: str, entries: list[list[object]]) -> None:
        match kind:
            case "asked" | "replicated" | "projected" | "superseded" | "refused":
                getattr(self, kind).update(str(id) for (id,) in entries)
            case "spooled" | "won":
                for id, of, number in entries:
                    getattr(self, kind)[id] = (of, number)
            case "content":
                self.contents.update({str(id): str(sha256) for id, sha256 in entries})
            case _:
                raise ValueError(f"a ledger has no {kind!r}")
