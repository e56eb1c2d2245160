"""Reads a text file line by line, whatever is in it: no line, and no file, is ever held whole."""

from collections.abc import Iterator
from pathlib import Path

from relight.engine.errors import ImportRefused
from relight.engine.importers.files import opened

MAX_LINE_BYTES = 1_000


def lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Each line's number, from 1, and its bytes without its end; None for one of more than `MAX_LINE_BYTES`.

    CRLF ends a line as LF does. Raises `ImportRefused` for what cannot be read, or is empty.
    """
    number = 0
    with opened(path) as file:
        while line := file.readline(MAX_LINE_BYTES + 2):
            number += 1
            whole = line.endswith(b"\n") or len(line) <= MAX_LINE_BYTES
            yield number, line.rstrip(b"\r\n") if whole else None
            while not whole and line and not line.endswith(b"\n"):
                line = file.readline(1 << 16)
    if number == 0:
        raise ImportRefused(f"{path} is empty: not even a header is there")
