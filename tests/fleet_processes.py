"""A fleet of forked processes and one dependency of all of them, which breaks and is repaired; prints what they saw.

`python fleet_processes.py NATS_URL FOLDER PROCESSES ROUNDS [--until-told]`: a JSON line for each round. With
`--until-told` it then breaks the dependency for good, once its standard input ends, and prints what they do then.
"""

import asyncio
import ctypes
import gc
import json
import mmap
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from relight.engine.errors import CircuitOpen, Unreachable
from relight.engine.guard.breakers.breaker import Breaker
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.breakers.tool import ToolBreaker
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.policies.fleet_breaker import FleetPolicy, FleetState, State
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.catalog import prepare
from relight.events.subjects import control_subject

FLEET = FleetPolicy(open_s=0.5, growth=2, lease_s=10)
POLICY = BreakerPolicy(consecutive_failures=2, failure_rate=None, open_s=0.4, open_max_s=0.4, fleet=FLEET)
TENANT = "acme"
DOMAINS = 5
PACE_S = (0.2, 0.4)
"""Between two calls of a process."""
DEADLINE_S = 120.0
"""Of each step; only what hangs takes that long, on however busy a machine."""
PR_SET_PDEATHSIG = 1

# What the parent asks for, and how far a child has come in it.
WAIT, CALM, ONE_FAULTY, BROKEN, REPAIRED, REPORT, STOP = range(7)
CALLED, TRIPPED, KNOWS, REOPENED, CLOSED, REPORTED = (1 << bit for bit in range(6))


class Shared:
    """Memory that all of them see: the phase, the round, the dependency's port, and a byte for each child."""

    def __init__(self, children: int) -> None:
        self._map = mmap.mmap(-1, 16 + 2 * children)
        self.children = children

    def set(self, *, phase: int, round_: int | None = None, port: int | None = None) -> None:
        if round_ is not None:
            self._map[1] = round_
        if port is not None:
            self._map[2:4] = port.to_bytes(2, "big")
        self._map[0] = phase

    @property
    def phase(self) -> int:
        return self._map[0]

    @property
    def round_(self) -> int:
        return self._map[1]

    @property
    def port(self) -> int:
        return int.from_bytes(self._map[2:4], "big")

    def reached(self, child: int, bit: int) -> None:
        self._map[16 + child] |= bit

    def ready(self, child: int, round_: int) -> None:
        self._map[16 + child] = 0
        self._map[16 + self.children + child] = round_ + 1

    def count_ready(self) -> int:
        return sum(value == self.round_ + 1 for value in self._map[16 + self.children : 16 + 2 * self.children])

    def count(self, bit: int) -> int:
        return sum(bool(value & bit) for value in self._map[16 : 16 + self.children])

    def has(self, child: int, bit: int) -> bool:
        return bool(self._map[16 + child] & bit)


class Child:
    """One process of the fleet."""

    def __init__(self, number: int, shared: Shared, recorder: Recorder, folder: Path) -> None:
        self.number = number
        self.shared = shared
        self.recorder = recorder
        self.folder = folder
        self.known_ns: dict[int, int] = {}
        self.raw_ns: dict[str, int] = {}
        self.closed = False
        self.after_trip = 0

    def run(self) -> None:
        shared, number = self.shared, self.number
        breakers = Breakers.beside(self.recorder)
        breakers.of("warm-up", POLICY)
        wait_until(lambda: breakers.health().failure is None, "rulings arrive")
        for round_ in range(256):
            self.known_ns, self.raw_ns, self.closed, self.after_trip = {}, {}, False, 0
            name = f"crm-{round_}"
            tool = ToolBreaker(breakers, name, policy=POLICY)
            self._watch(name)
            self._watch_raw(name)
            self._warm(tool.breaker)
            shared.ready(number, round_)
            wait_until(lambda: shared.phase not in (WAIT, REPORT), "all others are ready")
            while shared.phase not in (REPORT, STOP):
                self._call(tool)
            if shared.phase == STOP:
                return
            report = {"known_ns": self.known_ns, "raw_ns": self.raw_ns, "after_trip": self.after_trip}
            self.folder.joinpath(f"report-{number}").write_bytes(orjson.dumps(report, option=orjson.OPT_NON_STR_KEYS))
            shared.reached(number, REPORTED)
            goes_on = lambda: shared.phase == STOP or shared.round_ > round_  # noqa: B023, E731  # called at once
            wait_until(goes_on, "the next round begins")
            if shared.phase == STOP:
                return

    def _warm(self, breaker: Breaker) -> None:
        """Its last ruling, that there is none, has been read."""
        wait_until(lambda: breaker.linked, "the last ruling is known")

    def _call(self, tool: ToolBreaker) -> None:
        shared = self.shared
        faulty, knew = shared.phase == ONE_FAULTY and self.number == 0, shared.has(self.number, KNOWS)
        try:
            with tool:
                self.after_trip += knew and not self.closed
                ask(9 if faulty else shared.port, self.number)
            shared.reached(self.number, CALLED)
            if shared.has(self.number, REOPENED):
                shared.reached(self.number, CLOSED)
        except CircuitOpen:
            pass
        except OSError:
            if (health := tool.breaker.health()) is not None and not health.fleet:
                shared.reached(self.number, TRIPPED)
        time.sleep(random.uniform(*PACE_S))

    def _watch(self, name: str) -> None:
        """Notes when rulings take effect here."""
        told, child = _TOLD, self

        def noting(breaker: Breaker, state: FleetState, *, anew: bool = False) -> None:
            if breaker.name == name and state.rev and state.state is State.CLOSED:
                child.closed = True
            told(breaker, state, anew=anew)
            if breaker.name == name and state.state is State.OPEN:
                child.known_ns.setdefault(state.rev, time.time_ns())
                child.shared.reached(child.number, KNOWS if state.openings == 1 else REOPENED)

        Breaker.told = noting  # type: ignore[method-assign]  # it does the same, and looks at the clock

    def _watch_raw(self, name: str) -> None:
        """The same messages as a plain subscription of the same client has them."""

        async def on_message(message: Msg) -> None:
            event = orjson.loads(message.data)
            if event["type"] == "breakers.opened":  # of any attempt: the stream says later which was taken
                self.raw_ns.setdefault(str(event["id"]), time.time_ns())

        async def subscribe() -> None:
            while True:
                with suppress(NatsError, OSError, Unreachable):  # what a reconnection swallowed is never answered
                    client = await self.recorder.client()
                    await client.subscribe(control_subject("breaker", TENANT, name), cb=on_message)
                    await client.flush(timeout=5)
                    return

        try:
            self.recorder.in_loop(subscribe()).result(DEADLINE_S)
        except TimeoutError:
            raise TimeoutError(f"not within {DEADLINE_S:g} s: NATS answers a ping") from None


_TOLD = Breaker.told


def ask(port: int, number: int) -> None:
    """A call of the dependency; an `OSError` where it fails."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"%d\n" % number)
        if connection.recv(16) != b"ok\n":
            raise ConnectionError("no answer")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {DEADLINE_S:g} s: {what}")
        time.sleep(0.01)


class Dependency:
    """Counts calls, and answers them unless it is broken."""

    def __init__(self) -> None:
        self.broken = False
        self.calls_ns: list[tuple[int, int]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        self.calls_ns.append((time.time_ns(), int(line)))
        if not self.broken:
            writer.write(b"ok\n")
        writer.close()


def main() -> None:
    url, folder, processes, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    prepare()
    shared = Shared(processes)
    gc.collect()
    gc.freeze()
    pids = [fork(number, shared, url, folder) for number in range(processes)]
    try:
        asyncio.run(conduct(shared, rounds, folder, until_told="--until-told" in sys.argv))
        shared.set(phase=STOP)
        for pid in pids:
            os.waitpid(pid, 0)
    except BaseException:
        for pid in pids:
            with suppress(ProcessLookupError):  # the one whose end was noticed
                os.kill(pid, signal.SIGKILL)
        raise


def fork(number: int, shared: Shared, url: str, folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        options = RecorderOptions(
            nats_url=url,
            region="eu",
            tenant=TENANT,
            spools=folder / f"spool-{number}",
            fault_domain=f"zone-{number % DOMAINS}",
        )
        recorder = Recorder(options)
        recorder.start()
        Child(number, shared, recorder, folder).run()
        recorder.stop()
        status = 0
    except BaseException as error:
        print(f"child {number}: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


async def conduct(shared: Shared, rounds: int, folder: Path, *, until_told: bool) -> None:
    dependency = Dependency()
    server = await asyncio.start_server(dependency.serve, "127.0.0.1", 0, backlog=512)
    shared.set(phase=WAIT, port=server.sockets[0].getsockname()[1])
    for round_ in range(rounds):
        began = time.monotonic()
        await all_ready(shared)
        ready_s = time.monotonic() - began
        print(json.dumps(await one_round(shared, round_, dependency, folder) | {"ready_s": ready_s}), flush=True)
        shared.set(phase=WAIT, round_=round_ + 1)
    if until_told:
        await all_ready(shared)
        shared.set(phase=CALM)
        await all_reach(shared, CALLED)
        await asyncio.to_thread(sys.stdin.read)
        dependency.broken, before = True, len(dependency.calls_ns)
        await all_reach(shared, TRIPPED)
        print(json.dumps({"tripped": shared.count(TRIPPED), "calls": len(dependency.calls_ns) - before}), flush=True)
    server.close()


async def one_round(shared: Shared, round_: int, dependency: Dependency, folder: Path) -> dict[str, Any]:
    dependency.calls_ns.clear()
    dependency.broken = False
    shared.set(phase=CALM)
    await all_reach(shared, CALLED)
    shared.set(phase=ONE_FAULTY)
    await reach(lambda: shared.has(0, TRIPPED), "the faulty one trips")
    from_ns = time.time_ns()
    others = set(range(1, shared.children))
    # Longer, too, than anybody would leave a ruling to another.
    await reach(
        lambda: others <= {number for at_ns, number in dependency.calls_ns if at_ns > from_ns + 300_000_000},
        "all others go on calling",
    )
    alone = shared.count(KNOWS) == 0 and shared.count(TRIPPED) == 1
    dependency.broken = True
    shared.set(phase=BROKEN)
    await all_reach(shared, KNOWS)
    await all_reach(shared, REOPENED)
    dependency.broken = False
    shared.set(phase=REPAIRED)
    await all_reach(shared, CLOSED)
    shared.set(phase=REPORT)
    await all_reach(shared, REPORTED)
    said = [json.loads((folder / f"report-{child}").read_bytes()) for child in range(shared.children)]
    return {
        "service": f"crm-{round_}",
        "faulty_alone": alone,
        "children": said,
    }


SAYS = {
    CALLED: "had an answer",
    TRIPPED: "tripped",
    KNOWS: "know that it is open",
    REOPENED: "know that the probe failed",
    CLOSED: "make calls again",
    REPORTED: "reported",
}


async def all_ready(shared: Shared) -> None:
    await reach(lambda: shared.count_ready() == shared.children, "all are ready", shared.count_ready)


async def all_reach(shared: Shared, bit: int) -> None:
    await reach(lambda: shared.count(bit) == shared.children, f"all {SAYS[bit]}", lambda: shared.count(bit))


def check_alive(what: str) -> None:
    """A process that has ended would be waited for until the deadline."""
    ended, status = os.waitpid(-1, os.WNOHANG)
    if ended:
        raise ChildProcessError(f"process {ended} of the fleet ended with status {status}, before: {what}")


async def reach(condition: Callable[[], bool], what: str, count: Callable[[], int] | None = None) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        check_alive(what)
        if time.monotonic() > deadline:
            so_far = "" if count is None else f": {count()} by then"
            raise TimeoutError(f"not within {DEADLINE_S:g} s: {what}{so_far}")
        await asyncio.sleep(0.005)


if __name__ == "__main__":
    main()
