"""Runs the service in the foreground: from the first signal on it stops in order, and a second one cuts that short."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from relight.engine.embedded.home import Running
from relight.engine.health.readiness import Readiness
from relight.engine.servers import Servers
from relight.engine.service import Parts, Service, serving
from relight.engine.settings import Settings
from relight.engine.stopping import Stopping

SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def run_service(
    servers: Servers,
    settings: Settings,
    parts: Parts,
    announce: Callable[[Running], None],
    *,
    patient: bool = False,
) -> list[str]:
    """Until SIGTERM or SIGINT, or until a server of ours ends by itself, which is raised; gives what was cut off.

    After a signal /readyz says no, requests are still served for `unready_s`, and then all ends within `drain_s`.
    """
    readiness, stopping = Readiness(), Stopping(settings.drain_s)
    with _asked_to_stop(readiness, stopping) as asked, suppress(_Interrupted):
        async with serving(
            servers, settings, parts, readiness=readiness, stopping=stopping, patient=patient
        ) as service:
            asked.started()
            announce(_running(servers, service))
            await _first_of(asked.wait(), *_ends(servers, service))
            if settings.unready_s:
                await stopping.pause(settings.unready_s)
    return stopping.cut_off


class _Interrupted(Exception):
    """Asked to stop before it had started."""


class _Asked:
    """A signal: interrupts the start; afterwards it is waited for; the second one hurries."""

    def __init__(self, readiness: Readiness, stopping: Stopping) -> None:
        self._readiness = readiness
        self._stopping = stopping
        self._asked = asyncio.Event()
        self._starting = asyncio.current_task()

    def __call__(self) -> None:
        if self._asked.is_set():
            self._stopping.hurry()
            return
        self._asked.set()
        self._readiness.draining()
        if self._starting is not None:
            self._starting.cancel()

    @property
    def interrupted(self) -> bool:
        return self._asked.is_set() and self._starting is not None

    def started(self) -> None:
        self._starting = None
        if self._asked.is_set():
            raise _Interrupted

    async def wait(self) -> None:
        await self._asked.wait()


@contextmanager
def _asked_to_stop(readiness: Readiness, stopping: Stopping) -> Iterator[_Asked]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    asked = _Asked(readiness, stopping)
    # A shell lets its background jobs ignore SIGINT, and so it stays.
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, asked)
    # They stay until the loop ends: one more signal while servers of ours stop is no reason to leave them.
    try:
        yield asked
    except asyncio.CancelledError:
        if not asked.interrupted or task is None or task.uncancel() > 0:
            raise


def _running(servers: Servers, service: Service) -> Running:
    return Running(
        nats_url=servers.agents or servers.nats_url,
        monitor_url=",".join(servers.monitors),
        database_url=servers.database_url,
        health_url="" if service.http is None else f"{service.http.url}/health",
        pid=os.getpid(),
        region=servers.region,
        pids=servers.pids,
    )


def _ends(servers: Servers, service: Service) -> Iterator[Awaitable[None]]:
    """What ends only when something is wrong."""
    if service.http is not None:
        yield service.http.ended()
    if servers.ended is not None:
        yield servers.ended()


async def _first_of(*waits: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, late = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()
