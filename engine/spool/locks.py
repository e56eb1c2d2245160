"""Who holds a spool: a lock that ends with its process, and beside it the nonce of the spool's last opening."""

import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path

_held: set[int] = set()
_opening = threading.Lock()
"""Held while a descriptor is not yet in `_held`: fork() waits for it."""


def lock_path(spool: Path) -> Path:
    return spool.with_suffix(".lock")


def acquire(spool: Path) -> int | None:
    """The lock's descriptor, or None while a live process holds it. Raises `OSError`."""
    with _opening:
        descriptor = os.open(lock_path(spool), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        _held.add(descriptor)
    return descriptor


def release(descriptor: int) -> None:
    """Idempotent: in a fork()ed child it is closed already."""
    if descriptor in _held:
        _held.discard(descriptor)
        os.close(descriptor)


def is_held(spool: Path) -> bool:
    """Whether a live process holds it; asks without leaving a trace."""
    try:
        descriptor = os.open(lock_path(spool), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def nonces(descriptor: int) -> list[str]:
    """Of the opening that was announced last, and of the one before where its end is not known."""
    return os.pread(descriptor, 1_024, 0).decode("ascii", "replace").split()


def announce(descriptor: int, said: Sequence[str]) -> None:
    """Fsynced: whatever puts the spool's file back to an older state does not put this back."""
    os.pwrite(descriptor, f"{' '.join(said)}\n".encode(), 0)
    os.ftruncate(descriptor, len(" ".join(said)) + 1)
    os.fsync(descriptor)


def _after_fork_in_child() -> None:
    """flock() belongs to the open file, which parent and child share: the child's copy would outlive the parent."""
    _opening.release()
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_after_fork_in_child)
