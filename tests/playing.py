"""Plays chaos as `make chaos` does, in small."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHAOS = Path(__file__).parent / "chaos"
WITHIN_S = 240.0


class Played:
    """A run that is under way: most of it is waiting, so that several may be at once."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._told, self._said = folder / "told.json", folder / "said"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, CHAOS / "run.py", *arguments, "--json", self._told],
                stdout=said,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": str(CHAOS.parent)},
            )

    def figures(self) -> dict[str, Any]:
        """Waits for its end, asserts that every promise was kept, and gives all its figures."""
        try:
            code = self._process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"not within {WITHIN_S:g} s:\n{self._said.read_text()}") from None
        assert code == 0, self._said.read_text()
        found: dict[str, Any] = json.loads(self._told.read_text())
        assert [verdict for verdict in found["verdicts"] if verdict["kept"]] != []
        assert [verdict for verdict in found["verdicts"] if verdict["kept"] is False] == []
        return found

    def end(self) -> None:
        """What it started ends with it."""
        self._process.kill()
        self._process.wait()


@contextmanager
def playing(folder: Path, **runs: tuple[str, ...]) -> Iterator[dict[str, Played]]:
    """Begins them all, each with its arguments; none is left behind."""
    begun = {name: Played(folder / name, *arguments) for name, arguments in runs.items()}
    try:
        yield begun
    finally:
        for run in begun.values():
            run.end()
