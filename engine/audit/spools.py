"""What the spools of this machine know to be on the stream: the last of their events that was acknowledged."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from relight.engine.errors import SpoolUnusable
from relight.engine.spool.spool import Spool


def acknowledged_heads(folder: Path) -> dict[str, tuple[int, str]]:
    """By publisher: number and SHA-256. Reads only; a spool that cannot be read is left out, as `relight status` says.

    To be asked before the stream is: what is acknowledged by then has to be on it.
    """
    found: dict[str, tuple[int, str]] = {}
    for publisher, pseq, sha256 in _heads(sorted(folder.glob("*.db")) if folder.is_dir() else []):
        found[publisher] = max((pseq, sha256), found.get(publisher, (0, "")))
    return found


def _heads(paths: Sequence[Path]) -> Iterator[tuple[str, int, str]]:
    for path in paths:
        with suppress(SpoolUnusable):
            spool = Spool(path, read_only=True)
            try:
                publisher, pseq = spool.meta("publisher"), spool.acked_pseq()
                events = spool.pending(pseq - 1, 1, 1) if pseq else []
                if publisher is not None and events and events[0].pseq == pseq:
                    yield publisher, pseq, events[0].sha256
            finally:
                spool.close()
