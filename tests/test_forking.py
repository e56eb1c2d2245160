"""A fork()ed child can use spools, whatever other threads of its parent were doing with theirs."""

import os
import signal
import threading
import time

import pytest

from relight.engine.spool import forking
from relight.engine.spool.forking import INSIDE_SQLITE
from relight.engine.spool.spool import MEMORY, Spool

FORKS = 25


def ends(child: int, within_s: float = 20) -> bool:
    """Whether the child ends well, and in time."""
    deadline = time.monotonic() + within_s
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.002)
    return found[1] == 0


def forked_and_opened() -> int:
    """A child that opens a spool, writes on it and ends."""
    if (child := os.fork()) == 0:
        try:
            Spool(MEMORY).set_meta({"a": "b"})
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def test_a_child_that_is_forked_while_threads_write_their_spools_opens_one_of_its_own() -> None:
    """Found: a mutex of SQLite's that a writer held at the fork() was held in the child, which hung for ever."""
    over = threading.Event()

    def writes() -> None:
        spool = Spool(MEMORY)
        while not over.is_set():
            spool.set_meta({str(n): "x" * 2_000 for n in range(200)})
        spool.close()

    threads = [threading.Thread(target=writes) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert all(ends(forked_and_opened()) for _ in range(FORKS))
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_fork_does_not_wait_for_ever_for_a_thread_that_hangs_nor_for_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forking, "PATIENCE_S", 0.05)
    inside, over = threading.Event(), threading.Event()

    def hangs() -> None:
        with INSIDE_SQLITE:
            inside.set()
            over.wait()

    thread = threading.Thread(target=hangs)
    thread.start()
    inside.wait()
    try:
        with INSIDE_SQLITE:
            assert ends(forked_and_opened())
    finally:
        over.set()
        thread.join()
    assert ends(forked_and_opened())
