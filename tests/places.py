"""Where tests keep what their servers and spools write: in memory where there is room, for nobody cuts the power."""

import os
from pathlib import Path

MEMORY = Path("/dev/shm")
DISK = Path("/tmp")
ROOM_BYTES = 4 << 30
"""Of two workers, a PostgreSQL with its write-ahead log each, and what tests start besides."""

FILES = 500_000


def temporary() -> Path:
    """A folder for folders of tests; PostgreSQL copies a database in memory in a fifth of the time."""
    try:
        room = os.statvfs(MEMORY)
    except OSError:
        return DISK
    roomy = room.f_bavail * room.f_frsize >= ROOM_BYTES and room.f_favail > FILES
    return MEMORY if roomy and os.access(MEMORY, os.W_OK | os.X_OK) else DISK
