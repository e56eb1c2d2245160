"""Reads a text file line by line, whatever is in it: no line, and no file, is ever held whole."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from relight.engine.errors import ImportRefused

MAX_LINE_BYTES = 1_000
BOM = b"\xef\xbb\xbf"


def lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Each line's number, from 1, and its bytes without its end; None for one of more than `MAX_LINE_BYTES`.

    A byte order mark is skipped, and CRLF ends a line as LF does. Raises `ImportRefused` for what is no regular file,
    cannot be read, or is empty.
    """
    try:
        # Before it is opened: opening a pipe waits for its writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            kind = "a folder" if path.is_dir() else "no regular file, and it has to be read twice"
            raise ImportRefused(f"{path} is {kind}: name the file")
        with path.open("rb") as file:
            if file.read(len(BOM)) != BOM:
                file.seek(0)
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 2):
                number += 1
                whole = line.endswith(b"\n") or len(line) <= MAX_LINE_BYTES
                yield number, line.rstrip(b"\r\n") if whole else None
                while not whole and line and not line.endswith(b"\n"):
                    line = file.readline(1 << 16)
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read ({error.strerror}): correct the name or its permissions") from error
    except ValueError as error:  # a NUL in the name
        raise ImportRefused(f"{str(path)!r} cannot be read ({error}): correct the name") from error
    if number == 0:
        raise ImportRefused(f"{path} is empty: not even a header is there")
