"""`relight status`: once, or again and again."""

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import orjson
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from relight.engine.app import looking as engine
from relight.engine.cli.output import Json, out, print_json, run, settings
from relight.engine.errors import Unreachable
from relight.engine.health.document import flat
from relight.engine.health.models import Check, CheckStatus, Health, Status

COLOURS = {Status.HEALTHY: "green", Status.DEGRADED: "yellow", Status.UNHEALTHY: "red"}
CHECK_COLOURS = {CheckStatus.PASS: "green", CheckStatus.WARN: "yellow", CheckStatus.FAIL: "red"}


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 1.0,
    url: Annotated[
        str | None, typer.Option(help="Ask the service at this address, as in http://host:port.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how relight is and why; exit code 1 when unhealthy (with --watch, when it was so at the end).

    With --watch, --json prints one document a line.
    """
    if watch:
        _watch(interval, url, as_json)
        return
    here = settings()
    try:
        health = run(engine.check_health(here, url=url))
    except Unreachable as error:
        if url is None:  # what waits here waits just then
            _show_here(engine.check_here(here, error), as_json)
        raise
    if as_json:
        print_json(flat(health))
    else:
        out.print(_shown(health))
    if health.status is Status.UNHEALTHY:
        raise typer.Exit(1)


def _show_here(health: Health, as_json: bool) -> None:
    if as_json:
        print_json(flat(health))
    else:
        out.print(_shown(health))


def _watch(interval_s: float, url: str | None, as_json: bool) -> None:
    watcher = _Watcher(as_json)
    here = settings()

    async def work() -> None:
        async with engine.health_source(here, url=url) as ask:
            while True:
                try:
                    watcher.saw(await ask())
                except Unreachable as error:
                    watcher.lost(error)
                await asyncio.sleep(interval_s)

    try:
        with watcher.live:
            run(work())
    except KeyboardInterrupt:
        raise typer.Exit(watcher.exit_code) from None


class _Watcher:
    """Shows each look on a terminal in place of the last; elsewhere a line each."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._rate = _Rate()
        self.exit_code = 1
        self.live = Live(console=out, auto_refresh=False, transient=False)

    def saw(self, health: Health) -> None:
        self.exit_code = int(health.status is Status.UNHEALTHY)
        rate = self._rate.of(health.figures.seq)
        if self._as_json:
            self._line(orjson.dumps({**flat(health).model_dump(mode="json"), "projected_per_s": rate}).decode())
        elif out.is_terminal:
            self.live.update(_shown(health, rate), refresh=True)
        else:
            self._line(_short(health, rate))

    def lost(self, error: Unreachable) -> None:
        self.exit_code = 1
        if self._as_json:
            self._line(orjson.dumps({"status": Status.UNHEALTHY, "reasons": [str(error)]}).decode())
        elif out.is_terminal:
            self.live.update(Text.assemble(("no answer: ", "bold red"), str(error)), refresh=True)
        else:
            self._line(f"no answer: {error}")

    def _line(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


class _Rate:
    """Events projected a second, between two looks."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def of(self, seq: int | None) -> float | None:
        last, now = self._last, time.monotonic()
        if seq is None:
            return None
        self._last = (seq, now)
        return None if last is None else max(0.0, (seq - last[0]) / (now - last[1]))


def _shown(health: Health, rate: float | None = None) -> RenderableType:
    return Group(*_head(health, rate), _checks(health))


def _head(health: Health, rate: float | None) -> Iterator[RenderableType]:
    yield Text(health.status, style=f"bold {COLOURS[health.status]}")
    for reason in health.reasons:
        yield Text(f"  - {reason}")
    if rate is not None:
        yield Text(f"  {rate:,.0f} events/s projected")


def _checks(health: Health) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "check", "observed"):
        table.add_column(column, overflow="fold")
    for check in health.checks:
        name = f"{check.key} {check.id}" if check.id else check.key
        table.add_row(Text(check.status, style=CHECK_COLOURS[check.status]), Text(name), Text(_observed(check)))
    return table


def _observed(check: Check) -> str:
    match check.observed:
        case None:
            return "unknown"
        case dict() as parts:
            return ", ".join(f"{name} {value}" for name, value in parts.items())
        case list() as several:
            return ", ".join(map(str, several)) or "none"
        case float() as number:
            return f"{number:,.3f} {check.unit or ''}".rstrip()
        case bool() | str() as said:
            return str(said)
        case int() as number:
            return f"{number:,} {check.unit or ''}".rstrip()


def _short(health: Health, rate: float | None) -> str:
    figures = health.figures
    said = [f"{health.status:9}", f"seq {_or_unknown(figures.seq)}", f"lag {_or_unknown(figures.lag_events)} events"]
    said += [f"{_or_unknown(figures.lag_s)} s", *([f"{rate:,.0f} events/s"] if rate is not None else [])]
    return "  ".join(said + [reason for reason in health.reasons[:1]])


def _or_unknown(value: object) -> str:
    return "unknown" if value is None else str(value)
