"""`relight retention plan|apply`."""

from typing import Annotated

import typer

from relight.engine.app import tables as engine
from relight.engine.cli.output import Json, out, print_json, print_models, progress, run, settings
from relight.engine.errors import SettingsError
from relight.engine.settings import Settings
from relight.engine.tables.keeping import Keeping, histories, parse_keep

app = typer.Typer(help="How long history rows are kept: plan, apply.", no_args_is_help=True)

Keep = Annotated[
    str | None,
    typer.Option(help="How long, as 36h, 90d, 12w, 2y; without it the policy file (RELIGHT_RETENTION_FILE)."),
]
Table = Annotated[str | None, typer.Option(help="Only this history table.")]
Tenant = Annotated[str | None, typer.Option(help="Only this tenant's rows; - for the platform's.")]


def _keeping(here: Settings, keep: str | None, table: str | None, tenant: str | None) -> Keeping:
    if table is not None and table not in histories():
        raise typer.BadParameter(f"there is no history table {table}; there is {', '.join(histories())}")
    if keep is not None:
        return Keeping(default=parse_keep(keep, "--keep"), only_tenant=tenant, only_table=table)
    if here.retention_file is None:
        raise SettingsError(
            "nothing says how long rows are kept: give --keep 90d, or a policy in RELIGHT_RETENTION_FILE"
        )
    return Keeping.from_file(here.retention_file, tenant=tenant, table=table)


@app.command("plan")
def plan_(keep: Keep = None, table: Table = None, tenant: Tenant = None, as_json: Json = False) -> None:
    """Show what would be trimmed, and what could still be rebuilt from where; changes nothing."""
    here = settings()
    found = run(engine.plan_retention(here, _keeping(here, keep, table, tenant)))
    if as_json:
        print_json(found)
        return
    print_models("Rows past their limit are due; bytes are estimates", found.rows, empty="No history rows.")
    stream = found.stream
    out.print(
        f"The stream holds sequences {stream.first_seq} to {stream.last_seq}"
        + (f", since {stream.first_at:%Y-%m-%d %H:%M:%S} UTC" if stream.first_at else "")
        + (": everything can be rebuilt." if stream.from_the_beginning else ": earlier events are not on it any more."),
        highlight=False,
        soft_wrap=True,
    )
    agree = "holds" if stream.position_agrees else "does NOT hold"
    out.print(
        f"It {agree} what stands at the tables' position {stream.position}, and {stream.anchors_agree} of"
        f" {stream.anchors} anchors. A due row whose event"
        f" {'neither it nor the archive holds' if here.archive else 'it does not hold'} is kept.",
        highlight=False,
        soft_wrap=True,
    )
    print_models("Trimmed so far", found.trimmed, empty="Nothing was trimmed so far.")


@app.command("apply")
def apply_(keep: Keep = None, table: Table = None, tenant: Tenant = None, as_json: Json = False) -> None:
    """Trim rows past their limit whose event the stream holds; all others are kept, and counted."""
    here = settings()
    keeping = _keeping(here, keep, table, tenant)
    with progress() as bar:
        task = bar.add_task("events", total=None)
        done = run(engine.apply_retention(here, keeping, lambda seq, end: bar.update(task, completed=seq, total=end)))
    if as_json:
        print_json(done)
        return
    print_models(None, done.rows, empty="No history rows.")
    for name in done.dropped_partitions:
        out.print(f"dropped the empty partition {name}", highlight=False)
    kept = sum(rows.kept_nowhere_else for rows in done.rows)
    out.print(
        f"trimmed {sum(rows.trimmed for rows in done.rows)} rows in {done.took_s:.1f} s;"
        f" kept {kept} that are due but nowhere else",
        highlight=False,
        soft_wrap=True,
    )
