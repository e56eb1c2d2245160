"""Opens a file to be imported, or says why it cannot be read."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from relight.engine.errors import ImportRefused

BOM = b"\xef\xbb\xbf"


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file after its byte order mark. Raises `ImportRefused` for what is no regular file, or cannot be read."""
    try:
        # Before it is opened: opening a pipe waits for its writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            kind = "a folder" if path.is_dir() else "no regular file, and it has to be read twice"
            raise ImportRefused(f"{path} is {kind}: name the file")
        with path.open("rb") as file:
            if file.read(len(BOM)) != BOM:
                file.seek(0)
            yield file
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read ({error.strerror}): correct the name or its permissions") from error
    except ValueError as error:  # a NUL in the name
        raise ImportRefused(f"{str(path)!r} cannot be read ({error}): correct the name") from error
