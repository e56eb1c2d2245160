"""A fork() waits until no thread is inside SQLite, whose mutexes would be held for ever in the child."""

import os
import threading
import time
from types import TracebackType

PATIENCE_S = 5.0
"""Then it forks all the same: a disk may hang for longer than anybody waits for a child."""


class _Here(threading.local):
    depth = 0


class InsideSqlite:
    """`with` around whatever calls SQLite; from any thread, by many at once, and nested."""

    def __init__(self) -> None:
        self._here = _Here()
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = min(self._here.depth, 1)
        self._forking = 0

    def __enter__(self) -> None:
        here = self._here
        here.depth += 1
        if here.depth == 1:
            with self._changed:
                while self._forking:
                    self._changed.wait()
                self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        here = self._here
        here.depth -= 1
        if here.depth == 0:
            with self._changed:
                self._inside -= 1
                if self._forking:
                    self._changed.notify_all()

    def before_fork(self) -> None:
        """Nobody comes in from here on; whoever is inside leaves first."""
        self._changed.acquire()
        self._forking += 1
        deadline = time.monotonic() + PATIENCE_S
        while self._inside > min(self._here.depth, 1) and (left_s := deadline - time.monotonic()) > 0:
            self._changed.wait(left_s)

    def after_in_parent(self) -> None:
        self._forking -= 1
        self._changed.notify_all()
        self._changed.release()

    def after_in_child(self) -> None:
        self._begin()


INSIDE_SQLITE = InsideSqlite()
os.register_at_fork(
    before=INSIDE_SQLITE.before_fork,
    after_in_parent=INSIDE_SQLITE.after_in_parent,
    after_in_child=INSIDE_SQLITE.after_in_child,
)
