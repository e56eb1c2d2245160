"""Spools that somebody wants to be done with: which they are, what they still hold, and where they go."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from relight.engine.errors import RecorderError, SpoolUnusable
from relight.engine.spool.aside import Note, retire
from relight.engine.spool.listing import ListedSpool, State, list_spools
from relight.engine.spool.locks import acquire, release
from relight.engine.spool.spool import Spool

T = TypeVar("T")
Runs = Sequence[tuple[int, int]]


class RetireRefused(RecorderError):
    """A spool cannot be retired: it is in use, or still holds what is nowhere else."""


def to_retire(folder: Path, wanted: str) -> list[ListedSpool]:
    """The spool of that file name or all of that publisher; with one that was put aside, what was salvaged of it.

    Raises `RetireRefused` when there is none, or one of them is in use.
    """
    spools = list_spools(folder)
    chosen = [spool for spool in spools if wanted in (spool.file, Path(spool.file).stem, spool.publisher)]
    salvaged = {Note.of(folder / spool.file).salvaged for spool in chosen if spool.state is State.ASIDE}
    chosen += [spool for spool in spools if spool.file in salvaged and spool not in chosen]
    if not chosen:
        raise RetireRefused(f"there is no spool {wanted} in {folder}: see `relight spool list`")
    if live := [spool.file for spool in chosen if spool.state is State.LIVE]:
        raise RetireRefused(f"{', '.join(live)} in {folder} is written by a live process: stop that first")
    return chosen


def known_pseq(folder: Path, spools: Sequence[ListedSpool], publisher: str) -> int:
    """The highest number of that publisher that these spools know to have been used."""
    highest = 0
    for spool in spools:
        if spool.publisher != publisher:
            continue
        if spool.state is State.ASIDE:
            highest = max(
                [highest, Note.of(folder / spool.file).last_pseq or 0, *(last for _, last in spool.unreadable)]
            )
        else:
            with suppress(SpoolUnusable):
                highest = max(highest, _with(folder / spool.file, lambda opened: opened.head()[0]))
    return highest


def whole_head(folder: Path, spools: Sequence[ListedSpool], publisher: str) -> tuple[int, str] | None:
    """Where that publisher's one spool ends, with nothing after it; None where it is damaged, or there are several."""
    own = [spool for spool in spools if spool.publisher == publisher]
    if len(own) != 1 or own[0].state is State.ASIDE or own[0].unreadable_events:
        return None
    with suppress(SpoolUnusable):
        return _with(folder / own[0].file, lambda opened: opened.head())
    return None


def readable(folder: Path, publisher: str, runs: Runs) -> dict[str, list[int]]:
    """Which of these numbers lie in which spool of this folder after all, as they were written."""
    found: dict[str, list[int]] = {}
    for spool in list_spools(folder):
        if spool.publisher == publisher and spool.state is not State.ASIDE:
            with suppress(SpoolUnusable):
                numbers = _with(folder / spool.file, partial(_readable_of, runs=runs))
                if numbers:
                    found[spool.file] = numbers
    return found


def move_away(folder: Path, spools: Sequence[ListedSpool]) -> list[Path]:
    """Where they lie now. Raises `RetireRefused` when one came to be used meanwhile."""
    moved = []
    for spool in spools:
        path = folder / spool.file
        lock = acquire(path)
        if lock is None:
            raise RetireRefused(f"{path} is just being drained or written: try again")
        try:
            moved.append(retire(path))
        finally:
            release(lock)
    return moved


def _readable_of(spool: Spool, *, runs: Runs) -> list[int]:
    return [pseq for first, last in runs for pseq in spool.readable(first, last)]


def _with(path: Path, work: Callable[[Spool], T]) -> T:
    spool = Spool(path, read_only=True)
    try:
        return work(spool)
    finally:
        spool.close()
