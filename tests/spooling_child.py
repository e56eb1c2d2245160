"""A publisher that ends in a way of its own, or finds a folder of its own: records and says what it knows as JSON."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.breakers import BreakerFailed

nats_url, spools, way = sys.argv[1:4]
EVENTS = 200


def recorder_here() -> Recorder:
    recorder = Recorder(
        RecorderOptions(nats_url=nats_url, region="eu", tenant="acme", spools=Path(spools), ack_timeout_s=20)
    )
    recorder.start()
    return recorder


def record(recorder: Recorder, first: int, events: int = EVENTS) -> None:
    for n in range(first, first + events):
        recorder.record(BreakerFailed(service_name="api", details={"n": n}))


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def in_child(first: int) -> None:
    """Of multiprocessing: with a recorder of its own, which nobody stops."""
    record(recorder_here(), first)


def inherited(recorder: Recorder, first: int) -> None:
    record(recorder, first)


def main() -> None:
    recorder = recorder_here()
    if way == "told":
        recorder.record(BreakerFailed(service_name="api", details={"n": 0}))
        while (health := recorder.health()).exposed_events:
            time.sleep(0.01)
        say(publisher=recorder.publisher, spool_fault=health.spool_fault, failure=health.failure)
        recorder.stop()
        return
    record(recorder, 0)
    say(publisher=recorder.publisher)
    match way:
        case "sys.exit":
            sys.exit(3)
        case "exception":
            raise RuntimeError("nobody catches this")
        case "os._exit":
            recorder.record(BreakerFailed(service_name="api", details={"n": EVENTS})).wait(Ack.SPOOLED)
            os._exit(4)
        case "daemon":
            threading.Thread(target=forever, args=(recorder,), daemon=True).start()
            time.sleep(0.05)
        case "sigterm":
            recorder.record(BreakerFailed(service_name="api", details={"n": EVENTS})).wait(Ack.SPOOLED)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        case "fork" | "spawn" | "forkserver":
            context = multiprocessing.get_context(way)
            child = context.Process(target=in_child, args=(1_000,))
            child.start()
            child.join(20)
            say(exit=child.exitcode)
        case "inherited":
            child = multiprocessing.get_context("fork").Process(target=inherited, args=(recorder, 1_000))
            child.start()
            child.join(20)
            say(exit=child.exitcode)
        case "outlived":
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            other = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
            say(children=[pid, other.pid])
            recorder.record(BreakerFailed(service_name="api", details={"n": EVENTS})).wait(Ack.SPOOLED)
            os.kill(os.getpid(), signal.SIGKILL)
        case "forking":
            fork_while_threads_record(recorder)


def forever(recorder: Recorder) -> None:
    n = 1_000_000
    while True:
        recorder.record(BreakerFailed(service_name="api", details={"n": n}))
        n += 1
        time.sleep(0.0005)


def fork_while_threads_record(recorder: Recorder) -> None:
    """Whatever lock another thread holds at that moment, the child records all the same."""
    done = threading.Event()

    def work(first: int) -> None:
        n = first
        while not done.is_set():
            recorder.record(BreakerFailed(service_name="api", details={"n": n})).wait(Ack.SPOOLED)
            n += 1

    threads = [threading.Thread(target=work, args=(10_000 * (thread + 1),)) for thread in range(3)]
    for thread in threads:
        thread.start()
    codes = []
    for fork in range(8):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            try:
                recorder.record(BreakerFailed(service_name="api", details={"n": -1 - fork})).wait(Ack.SPOOLED)
                recorder.stop(deadline_s=5)
                os._exit(0)
            finally:
                os._exit(1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    done.set()
    for thread in threads:
        thread.join()
    say(codes=codes)


if __name__ == "__main__":
    main()
