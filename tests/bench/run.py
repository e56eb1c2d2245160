"""Every benchmark, or those named: prints one table, and with --json writes all rounds. Never fails on a figure."""

import asyncio
import json
import os
import platform
import statistics
import sys
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from pathlib import Path

from measuring import Bench, Figure
from rich.console import Console
from rich.table import Table
from servers import running_servers

BENCHMARKS = (
    "codec",
    "record_call",
    "guarding",
    "streaming",
    "recording",
    "folded",
    "projecting",
    "rebuilding",
    "archiving",
    "freshness",
    "subscriber_peer",
    "fleet_breakers",
    "failover_commands",
    "tasking",
)
WIDTH = 180
"""Of the table where it goes to a file or a pipe."""


def main() -> None:
    parser = ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures, every round of them")
    parser.add_argument("--quick", action="store_true", help="fewer events and rounds: under a minute, and noisier")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}: choose from {', '.join(BENCHMARKS)}")
    figures = asyncio.run(_run(arguments.names or BENCHMARKS, quick=arguments.quick))
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    console.print(_table(figures))
    if arguments.json:
        told = {"machine": _machine(), "quick": arguments.quick, "figures": [figure.as_json() for figure in figures]}
        arguments.json.write_text(json.dumps(told, indent=2) + "\n")


async def _run(names: tuple[str, ...] | list[str], *, quick: bool) -> list[Figure]:
    figures, console = [], Console(stderr=True)
    async with running_servers(quick=quick) as bench:
        for name in names:
            measure: Callable[[Bench], AsyncIterator[Figure]] = import_module(name).measure
            with console.status(f"{name} …"):
                figures += [figure async for figure in measure(bench)]
    return figures


def _table(figures: list[Figure]) -> Table:
    table = Table(title=_machine(), caption="median (low–high) of the rounds; ratio: median of the rounds' ratios")
    for heading in ("what", "unit", "ours", "beside", "raw limit", "ratio", "target"):
        table.add_column(heading, justify="left" if heading in ("what", "unit", "beside") else "right", no_wrap=True)
    for figure in figures:
        sign, colour = _SIGNS[figure.better], _COLOURS[figure.met]
        target = "" if figure.target is None else f"[{colour}]{sign} {figure.target:g}[/]"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        table.add_row(
            figure.name, figure.unit, _rounds(figure.ours), figure.against, _rounds(figure.limit), ratio, target
        )
    return table


_SIGNS = {"higher": "≥", "lower": "≤"}
_COLOURS = {True: "green", False: "red", None: "default"}


def _rounds(values: object) -> str:
    match values:
        case [_, *_] as rounds:
            median = _number(statistics.median(rounds))
            return median if len(rounds) == 1 else f"{median} ({_number(min(rounds))}–{_number(max(rounds))})"
        case _:
            return ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
