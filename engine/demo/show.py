"""The report for people: five short tables, every row with the id of its event."""

from collections.abc import Callable, Iterable, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from relight.engine.demo.report import ASKED, TIMELINE, Report
from relight.engine.demo.world import REGIONS
from relight.projections.catalog import queries

DIGEST_LETTERS = 12

Cells = tuple[str, str, str]
"""Time, what happened, the event's id."""


def show(report: Report, console: Console) -> None:
    """Prints it."""
    console.print(
        f"\n[bold]A scripted day[/] (seed {report.seed}): a fleet of agents in {', '.join(REGIONS)}, from midnight to"
        " midnight UTC. Nothing in it happened, but all of it was recorded, published and projected by real"
        " servers, started for it in a temporary folder; they are gone, and yours were not touched.\n",
        highlight=False,
    )
    _show_tables(report, console)
    for name, rows in {**report.queries, TIMELINE: report.timeline}.items():
        _show_rows(console, name, map(_SHOWN[name], rows))
    fresh = report.freshness_ms
    console.print(
        f"[bold]Fresh[/]   {fresh.events} live events, one at a time, were visible {fresh.p50:.0f} ms (p50) and"
        f" {fresh.p99:.0f} ms (p99) after they were recorded.",
        highlight=False,
    )
    console.print(
        f"[bold]Equal[/]   PostgreSQL's tables and those folded in memory from the stream alone, at message"
        f" {report.seq}: {'[green]the same 20 digests[/]' if report.equal else '[red]digests differ[/]'}.",
        highlight=False,
    )
    for failure in report.failures:
        console.print(f"[red]{escape(failure)}[/]", highlight=False)


def _show_tables(report: Report, console: Console) -> None:
    table = _table("Twenty tables, and the SHA-256 of each in both stores")
    table.add_column("table")
    table.add_column("rows", justify="right")
    for store in report.digests:
        table.add_column(store)
    table.add_column("")
    for name, rows in report.tables.items():
        digests = [store[name] for store in report.digests.values()]
        same = "[green]equal[/]" if len(set(digests)) == 1 else "[red]differ[/]"
        table.add_row(name, f"{rows:,}", *(digest[:DIGEST_LETTERS] for digest in digests), same)
    console.print(table, "", highlight=False)


def _show_rows(console: Console, name: str, rows: Iterable[Cells]) -> None:
    table = _table(queries()[name].question)
    table.add_column("time", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("event", no_wrap=True, style="dim")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table, highlight=False)
    tenant, arguments = ASKED[name]
    command = " ".join((name, *(f"{parameter}={value}" for parameter, value in arguments.items())))
    console.print(f" [dim]relight query {escape(command)} --tenant {tenant}[/]\n", highlight=False, soft_wrap=True)


def _table(title: str) -> Table:
    return Table(
        title=f"[bold]{escape(title)}[/]",
        title_justify="left",
        title_style="",
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 1),
    )


Row = Mapping[str, object]


def _time(row: Row, column: str = "occurred_at") -> str:
    return str(row[column])[11:19]


def _breaker(row: Row) -> Cells:
    what = f"{row['service_name']} is {row['state']}: {row['reason']}; next try {_time(row, 'next_retry_at')}"
    return _time(row, "opened_at"), what, str(row["event_id"])


def _checkpoint(row: Row) -> Cells:
    state = row["state_snapshot"]
    assert isinstance(state, dict)
    said = ", ".join(f"{name} {value}" for name, value in state.items() if value is not None)
    return _time(row), f"{row['checkpoint_type']}: {said}", str(row["event_id"])


def _move(row: Row) -> Cells:
    owner = f" to {row['to_owner']}, epoch {row['epoch']}" if row["to_owner"] else ""
    what = f"{row['migration_status']} {row['from_region']} → {row['to_region']}{owner}: {row['reason']}"
    return _time(row), what, str(row["event_id"])


def _action(row: Row) -> Cells:
    assumed = row["assumptions"]
    assert isinstance(assumed, list | tuple)
    what = f"{row['executed_by']}: {row['action_taken']}"
    what += f" (assuming {', '.join(assumed)})" if assumed else ""
    what += f": {row['result']}" if row["result"] else ""
    return _time(row), what, str(row["event_id"])


_SHOWN: dict[str, Callable[[Row], Cells]] = {
    "breakers.open_now": _breaker,
    "decisions.audit": _checkpoint,
    "tasks.migrations": _move,
    TIMELINE: _action,
}
