"""`relight failover receipt|receipts|gone`."""

import getpass
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from relight.engine.app import receipts as engine
from relight.engine.cli.output import Json, fail, out, print_json, print_table, run, settings
from relight.engine.regions.receipts.followed import Completed
from relight.engine.regions.receipts.rendering import lines

T = TypeVar("T")

app = typer.Typer()

FleetName = Annotated[str | None, typer.Option("--fleet", help="Of which fleet; else the topology's, or agents.")]


@app.command("receipt")
def receipt(
    failover: Annotated[str, typer.Argument(help="The failover's id.")],
    fleet: FleetName = None,
    as_json: Json = False,
) -> None:
    """What a failover left confirmed, absent and in doubt, with ids; and how that ended."""
    shown = _with_receipts(fleet, lambda it: it.show(failover))
    if as_json:
        closing = None if shown.closing is None else shown.closing.model_dump(mode="json")
        print_json({"receipt": shown.receipt.model_dump(mode="json"), "closing": closing})
        return
    for line in lines(shown.receipt, shown.closing):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command("receipts")
def receipts(fleet: FleetName = None, as_json: Json = False) -> None:
    """Failovers whose receipt is not closed."""

    async def listed(it: engine.FleetReceipts) -> tuple[Completed, ...]:
        return it.open

    found = _with_receipts(fleet, listed)
    rows = [(one.failover, one.source_region, one.target_region, one.completed_at) for one in found]
    if as_json:
        print_json([dict(zip(("failover", "source", "target", "completed_at"), row, strict=True)) for row in rows])
        return
    print_table("open receipts", ("failover", "out of", "to", "completed"), rows)


@app.command("gone")
def gone(
    region: Annotated[str, typer.Argument(help="The region that will not come back.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the closed receipt.")],
    by: Annotated[str | None, typer.Option("--by", help="Who declares it; else the user of this shell.")] = None,
    fleet: FleetName = None,
    as_json: Json = False,
) -> None:
    """Close the open receipts of a region: what is absent is lost, what is in doubt stays in doubt.

    Should something come all the same, it is recorded as ever. Exit code 1 where no receipt of it is open.
    """
    closings = _with_receipts(fleet, lambda it: it.gone(region, declared_by=by or getpass.getuser(), reason=reason))
    if as_json:
        print_json([closing.model_dump(mode="json") for closing in closings])
    for closing in () if as_json else closings:
        out.print(
            f"failover {closing.failover}: {closing.recovered_events} events recovered, {closing.lost_events} lost,"
            f" {closing.in_doubt_events} in doubt",
            highlight=False,
            soft_wrap=True,
        )
    if not closings:
        fail(f"no receipt of a failover out of {region} is open: see `relight failover receipts`")


def _with_receipts(fleet: str | None, work: Callable[[engine.FleetReceipts], Awaitable[T]]) -> T:
    here = settings()

    async def working() -> T:
        async with engine.opened_receipts(here, fleet) as found:
            return await work(found)

    return run(working())
