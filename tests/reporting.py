"""What a drill or a chaos run found, whether what was promised was kept, and how both are told."""

import asyncio
import os
import platform
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

WIDTH = 160
"""Of the table where it goes to a file or a pipe."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One line of the report; `kept` None: a figure that nobody promised."""

    phase: str
    name: str
    figure: str
    asked: str = ""
    kept: bool | None = None
    detail: str = ""


@dataclass(kw_only=True)
class Report:
    """What all phases found; `figures` has everything for machines."""

    verdicts: list[Verdict] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def broken(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.kept is False]

    def figure(self, phase: str, name: str, figure: str, detail: str = "") -> None:
        self.verdicts.append(Verdict(phase=phase, name=name, figure=figure, detail=detail))

    def promise(self, phase: str, name: str, figure: str, *, kept: bool, asked: str, detail: str = "") -> None:
        self.verdicts.append(
            Verdict(phase=phase, name=name, figure=figure, asked=asked, kept=kept, detail="" if kept else detail)
        )

    def as_json(self) -> dict[str, Any]:
        return {"verdicts": [asdict(verdict) for verdict in self.verdicts], "figures": self.figures}


class Step(Protocol):
    """Told what begins now, and how long it takes where that is known."""

    def __call__(self, text: str, seconds: float | None = None) -> None: ...


@asynccontextmanager
async def stepping() -> AsyncIterator[Step]:
    """On a terminal a bar for the step in hand, elsewhere a line for each."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def step(text: str, seconds: float | None = None) -> None:
            for task in progress.task_ids:
                progress.remove_task(task)
            progress.add_task(text, total=seconds)
            if not console.is_terminal:
                console.print(f"[{time.strftime('%H:%M:%S')}] {text}", markup=False, highlight=False)

        advancing = asyncio.create_task(_advance(progress))
        try:
            yield step
        finally:
            advancing.cancel()


async def _advance(progress: Progress) -> None:
    while True:
        await asyncio.sleep(0.2)
        for task in progress.tasks:
            progress.update(task.id, completed=task.elapsed or 0)


def tell(report: Report, *, caption: str) -> None:
    """Prints the table, then every promise that was broken."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    console.print(_table(report.verdicts, caption))
    for verdict in report.broken:
        console.print(
            f"[red]broken:[/] {verdict.phase}: {verdict.name}: {verdict.figure}, asked {verdict.asked}", soft_wrap=True
        )
        if verdict.detail:
            console.print(f"  {verdict.detail}", markup=False, highlight=False, soft_wrap=True)


def _table(verdicts: Sequence[Verdict], caption: str) -> Table:
    table = Table(title=machine(), caption=caption)
    for heading in ("phase", "what", "found", "promised", ""):
        table.add_column(heading, overflow="fold")
    for verdict in verdicts:
        table.add_row(verdict.phase, verdict.name, verdict.figure, verdict.asked, _mark(verdict))
    return table


def _mark(verdict: Verdict) -> str:
    return {True: "[green]kept[/]", False: "[red]BROKEN[/]", None: ""}[verdict.kept]


def machine() -> str:
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    kind = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{kind}, shared with whatever else ran: load averages {load}"


def ms(value: float | None) -> str:
    return "none" if value is None else f"{value:,.1f} ms"


def s(value: float | None) -> str:
    return "never" if value is None else f"{value:,.2f} s"
