"""The lock on a data folder, held by whoever writes there: the starting process, then the server itself."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from relight.engine.errors import EmbeddedServerError

POLL_S = 0.01


@asynccontextmanager
async def exclusive(path: Path, *, wait_s: float) -> AsyncIterator[int]:
    """Hold the file's lock and yield its descriptor, to be inherited by the server.

    flock belongs to the open file, so the lock ends when the last process that inherited the descriptor has ended:
    a server that outlives a killed parent for a moment cannot meet its successor on the same data.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        clock = asyncio.get_running_loop().time
        give_up = clock() + wait_s
        while not taken(descriptor):
            if clock() >= give_up:
                raise EmbeddedServerError(
                    f"The data in {path.parent} is in use by another process: "
                    "stop it, or set RELIGHT_HOME to another folder."
                )
            await asyncio.sleep(POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def taken(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Try to take the lock, without waiting."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
