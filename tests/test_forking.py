"""A fork()ed child can use spools, whatever other threads of its parent were doing with theirs."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.spool import forking
from relight.engine.spool.forking import INSIDE_SQLITE
from relight.engine.spool.spool import MEMORY, Spool

FORKS = 25
RECORDING = """
import sys
from pathlib import Path
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.decisions import DecisionCheckpointed

url, monitor, spools = sys.argv[1:]
options = RecorderOptions(nats_url=url, nats_monitor_urls=(monitor,), region="eu", tenant="acme", spools=Path(spools))
before = set(sys.modules)
with Recorder(options) as recorder:
    recorder.content(b"content")
    receipt = recorder.record(DecisionCheckpointed(decision="d", checkpoint_type="c", state_snapshot={}))
    recorder.reach(receipt, Ack.REPLICATED).result(20)
print(sorted(set(sys.modules) - before))
"""


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


async def test_a_recorders_threads_import_nothing_that_a_fork_could_cut_short(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path / "home") as nats:
        command = [sys.executable, "-c", RECORDING, nats.url, nats.monitor_url, str(tmp_path / "spools")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout.strip(), ended.stderr) == ("[]", "")
