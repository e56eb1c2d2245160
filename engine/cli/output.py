"""What commands print: tables for people, JSON for scripts, one sentence for errors."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, NoReturn, TypeVar

import orjson
import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from relight.engine.errors import RelightError
from relight.engine.settings import Settings

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

WIDTH_WITHOUT_TERMINAL = 200
FOLDED_WIDTH = 36
"""A cell may be folded to this; it is that of an id."""

out = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
err = Console(stderr=True)


def settings() -> Settings:
    return Settings.from_environment()


def run(coroutine: Coroutine[Any, Any, T], *, serving: bool = False) -> T:
    """Runs a command's work; Ctrl-C and SIGTERM cancel it, so that everything is closed in order.

    `serving`: on uvloop where it is installed.
    """

    async def interruptible() -> T:
        task = asyncio.current_task()
        assert task is not None
        # Not by way of SIGINT, which a shell lets its background jobs ignore.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await coroutine

    try:
        with asyncio.Runner(loop_factory=_fast_loop() if serving else None) as runner:
            return runner.run(interruptible())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it is made for CPython only
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def fail(error: RelightError | str) -> NoReturn:
    """One sentence and what to do, exit code 1."""
    err.print(f"[red]error:[/] {_escaped(str(error))}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def print_json(value: object) -> None:
    """One JSON document, models included."""
    sys.stdout.write(
        orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode() + "\n"
    )


def print_table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table as wide as it needs to be where the output is no terminal."""
    _print_cells(title, columns, ([_cell(value) for value in row] for row in rows))


def _print_cells(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", header_style="bold", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def print_models(title: str | None, models: Sequence[object], *, empty: str) -> None:
    """A table of pydantic models or dataclasses with their fields as columns; too wide, one table for each of them."""
    if not models:
        out.print(empty)
        return
    first = models[0]
    columns = list(type(first).model_fields) if isinstance(first, BaseModel) else list(vars(first))
    rows = [[_cell(getattr(model, column)) for column in columns] for model in models]
    widths = (max(len(name), *(len(row[n]) for row in rows)) for n, name in enumerate(columns))
    if sum(min(width, FOLDED_WIDTH) + 3 for width in widths) < out.width:
        _print_cells(title, columns, rows)
        return
    if title:
        out.print(title, style="italic", highlight=False)
    for n, row in enumerate(rows, 1):
        _print_cells(
            f"{n} of {len(rows)}", ("", ""), [pair for pair in zip(columns, row, strict=True) if pair[1] != "-"]
        )


def progress() -> Progress:
    """A bar on stderr, shown only on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S")
        case dict() | list() | tuple():
            return _escaped(orjson.dumps(value, default=_plain).decode())
        case _:
            return _escaped(str(value))


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be shown as JSON")
