"""How much of the machine each part of a drill takes."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
from scene import Scene


class Cores:
    """Measures from its making on; processes that ended meanwhile are left out."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._began = time.monotonic()
        self._before = dict(self._taken())

    def used(self) -> dict[str, float]:
        """Cores on average, by part."""
        seconds = time.monotonic() - self._began
        return {who: (taken - self._before.get(who, 0)) / seconds for who, taken in self._taken()}

    def _taken(self) -> Iterator[tuple[str, float]]:
        scene = self._scene
        pids = {
            "clients": [scene.clients.process.pid],
            "publisher": [scene.publisher.process.pid],
            "API": [served.process.pid for served in scene.fleet.of("api")],
            "projectors": [served.process.pid for served in scene.fleet.of("projector")],
            "PostgreSQL": [scene.postgres.pid],
            "NATS": [scene.nats.pid],
            "drill": [os.getpid()],
        }
        for who, heads in pids.items():
            # Each session of PostgreSQL is a process of its own, a child of the server.
            yield who, sum(_cpu_s(pid, with_children=who == "PostgreSQL") for pid in heads)


def _cpu_s(pid: int, *, with_children: bool) -> float:
    found = 0.0
    with suppress(psutil.NoSuchProcess):
        head = psutil.Process(pid)
        for process in [head, *(head.children(recursive=True) if with_children else [])]:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                found += times.user + times.system
    return found
