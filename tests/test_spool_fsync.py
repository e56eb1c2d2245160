"""The calls to fsync() and fdatasync() before SPOOLED and before REPLICATED, counted by strace.

What a power cut does beyond that, to a disk that lies or to a file system's own journal, is untested.
"""

import asyncio
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import stack
from conftest import lacking
from stack import failed, nats_server, options, until

from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder

ROUNDS = 20
SYNCED = re.compile(r"^\d+ +(?P<at>[\d.]+) (?:fsync|fdatasync)\(\d+<(?P<path>[^>]*)>")
TOLD = re.compile(r'^\d+ +(?P<at>[\d.]+) write\(1<[^>]*>, "(?P<what>taken|spooled) ')


@pytest.fixture(autouse=True)
def strace() -> None:
    if shutil.which("strace") is None:
        lacking("strace")


CHILD = """
import os
import sys
from pathlib import Path
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.breakers import BreakerFailed

# No server: acknowledgements would be written, and synced, too.
options = RecorderOptions(nats_url="nats://127.0.0.1:1", region="eu", tenant="acme", spools=Path(sys.argv[1]))
recorder = Recorder(options)
recorder.start()
for n in range(int(sys.argv[2])):
    os.write(1, b"taken %d" % n)
    receipts = [recorder.record(BreakerFailed(service_name="api", details={"n": n})) for _ in range(n + 1)]
    for receipt in receipts:
        receipt.wait(Ack.SPOOLED)
    os.write(1, b"spooled %d" % n)
recorder.stop(deadline_s=0.1)
"""


def test_no_event_is_told_spooled_before_the_spool_was_synced(spools: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spools.parent.mkdir(exist_ok=True)
    log = spools.parent / "strace"
    command = ["strace", "-f", "-ttt", "-y", "-e", "trace=fsync,fdatasync,write", "-o", str(log)]
    subprocess.run(
        [*command, sys.executable, "-c", CHILD, str(spools), str(ROUNDS)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    counted: list[int] = []
    since: int | None = None
    for line in log.read_text().splitlines():
        if told := TOLD.match(line):
            if told["what"] == "taken":
                since = 0
            else:
                assert since is not None
                counted.append(since)
                since = None
        elif (synced := SYNCED.match(line)) and since is not None and synced["path"].endswith("slot-0.db-wal"):
            since += 1
    with capsys.disabled():
        print(f"\n  syncs of the spool's WAL between record() and SPOOLED, groups of 1 to {ROUNDS}: {counted}")
    assert len(counted) == ROUNDS
    assert min(counted) >= 1


@contextmanager
def traced(pid: int, log: Path) -> Iterator[None]:
    """Counts what that process syncs, and when."""
    command = ["strace", "-f", "-ttt", "-y", "-e", "trace=fsync,fdatasync", "-o", str(log), "-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    if "attached" not in said:
        tracer.wait(10)
        pytest.skip(f"strace cannot attach to a process here: {said.strip()}")
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
        tracer.stderr.close()


async def test_no_event_is_called_replicated_before_the_server_synced_the_stream(
    spools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stack.folder() as there:
        log = there / "strace"
        async with nats_server() as nats, Recorder(options(nats, spools)) as recorder:
            await recorder.record(failed(0)).reached(Ack.REPLICATED)
            with traced(nats.pid, log):
                # The tracer says that it is attached before it is to all threads.
                await recorder.record(failed(1)).reached(Ack.REPLICATED)
                await until(log.exists, "strace writes")
                spans = []
                for n in range(ROUNDS):
                    began = time.time()
                    await recorder.record(failed(2 + n)).reached(Ack.REPLICATED)
                    spans.append((began, time.time()))
                    await asyncio.sleep(0.01)
        synced = [
            (float(found["at"]), found["path"])
            for line in log.read_text().splitlines()
            if (found := SYNCED.match(line))
        ]
    counted = [
        sum(began <= at <= ended and path.endswith(".blk") and "/EV/" in path for at, path in synced)
        for began, ended in spans
    ]
    files = Counter(Path(path).suffix for _, path in synced)
    with capsys.disabled():
        print(f"\n  syncs of the stream's block between record() and REPLICATED: {counted}; all: {dict(files)}")
    assert min(counted) >= 1
