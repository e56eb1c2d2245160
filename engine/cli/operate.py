"""`relight up`, `serve` and `migrate`."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from relight.engine.app import running as engine
from relight.engine.app import tables
from relight.engine.cli import topology
from relight.engine.cli.output import Json, err, out, print_json, print_models, run, settings
from relight.engine.embedded.home import Running
from relight.engine.service import Parts


def up(
    named: Annotated[
        str | None,
        typer.Option("--topology", help="A TOML file, or embedded, zone or stretch; RELIGHT_TOPOLOGY if not given."),
    ] = None,
    region: Annotated[
        str | None, typer.Option("--region", help="Only this region of the topology; else all, a process for each.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart/--no-restart", help="Start a region's process again when it ends by itself.")
    ] = True,
    with_stdin: Annotated[bool, typer.Option("--ends-with-stdin", hidden=True)] = False,
    as_json: Json = False,
) -> None:
    """Run NATS, PostgreSQL, the projector and the API in the foreground; Ctrl-C or SIGTERM ends all of it in order.

    Where RELIGHT_NATS_URL and RELIGHT_DATABASE_URL are set, those servers are used and none is started. With a
    topology all its regions run on this machine, or one of them.
    """
    here = settings()
    if (named := named or here.topology) is not None:
        topology.up(here, named, region, restart=restart, with_stdin=with_stdin, as_json=as_json)
        return
    if region is not None:
        raise typer.BadParameter("--region is of a topology: name one with --topology")
    ours = here.nats_url is None

    def announce(running: Running) -> None:
        if as_json:
            addresses = {
                "nats_url": running.nats_url,
                "monitor_url": running.monitor_url,
                "database_url": running.database_url,
            }
            served = {"http_url": _api(running), "health_url": running.health_url, "home": str(here.home)}
            print_json({**(addresses if ours else {}), **served})
        else:
            out.print("[bold]relight is up[/], ends with Ctrl-C.")
            if ours:
                out.print("Other commands of this home find it by themselves; other homes and machines by")
                for name, value in (
                    ("RELIGHT_NATS_URL", running.nats_url),
                    ("RELIGHT_NATS_MONITOR_URLS", running.monitor_url),
                    ("RELIGHT_DATABASE_URL", running.database_url),
                ):
                    out.print(f"export {name}='{value}'", highlight=False, soft_wrap=True)
            out.print(f"api:    {_api(running)}", highlight=False, soft_wrap=True)
            out.print(f"health: {running.health_url}", highlight=False, soft_wrap=True)
            out.print(f"data:   {here.home}", highlight=False, soft_wrap=True)
        sys.stdout.flush()

    _ended(run(engine.run_up(here, announce), serving=True))
    err.print("relight is down; what was recorded stays in its home")


def serve(
    no_http: Annotated[
        bool, typer.Option("--no-http", help="No API here: only /health and the probes are listened for.")
    ] = False,
    no_projector: Annotated[bool, typer.Option("--no-projector", help="Another process projects.")] = False,
    no_ingest: Annotated[bool, typer.Option("--no-ingest", help="Take no events from outside.")] = False,
    no_archive: Annotated[
        bool, typer.Option("--no-archive", help="Another process writes the archive of RELIGHT_ARCHIVE.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the service for servers of yours: RELIGHT_NATS_URL and RELIGHT_DATABASE_URL are needed, and waited for.

    Several may run at once. /startupz says what is waited for. SIGTERM or Ctrl-C drains: /readyz says no, requests
    are served for RELIGHT_UNREADY_S more, and what is at hand is finished within RELIGHT_DRAIN_S. Exit code 1 when
    something had to be cut off.
    """
    here = settings()
    archives = here.archive is not None and not no_archive
    parts = Parts(api=not no_http, projector=not no_projector, ingest=not no_ingest, archive=archives)

    def announce(running: Running) -> None:
        if as_json:
            served = {"http_url": _api(running), "health_url": running.health_url}
            print_json({**served, "pid": running.pid, "parts": str(parts)})
        else:
            out.print(f"[bold]relight serves[/] {parts}; ends with Ctrl-C.", highlight=False)
            out.print(f"health: {running.health_url}", highlight=False, soft_wrap=True)
        sys.stdout.flush()

    _ended(run(engine.run_serve(here, parts, announce), serving=True))


def _api(running: Running) -> str:
    return running.health_url.removesuffix("/health")


def _ended(cut_off: Sequence[str]) -> None:
    for sentence in cut_off:
        err.print(f"cut off: {sentence}", highlight=False, soft_wrap=True, markup=False)
    if cut_off:
        raise typer.Exit(1)


def migrate_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be applied.")] = False,
    show: Annotated[bool, typer.Option("--status", help="Say what is applied and what is not.")] = False,
    as_json: Json = False,
) -> None:
    """Bring the database's tables up to this release; twice is a no-op, and an edited migration is refused."""
    if show:
        known = run(tables.migration_status(settings()))
        if as_json:
            print_json(known)
        else:
            print_models("Migrations", known, empty="There are no migrations.")
        return
    applied = run(tables.migrate_database(settings(), dry_run=dry_run))
    if as_json:
        print_json({"dry_run": dry_run, "applied": applied})
        return
    verb = "would be applied" if dry_run else "applied"
    for migration in applied:
        out.print(f"{verb}: {migration.name}", highlight=False)
    if not applied:
        out.print("Nothing to apply: the database is up to date.")
