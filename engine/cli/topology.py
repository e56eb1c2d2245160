"""`relight topology`, and `relight up` of one."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from relight.engine.app import topologies
from relight.engine.app import topology as engine
from relight.engine.cli.output import Json, err, fail, out, print_json, print_table, run, settings
from relight.engine.embedded.home import Running
from relight.engine.settings import Settings
from relight.engine.topology.differences import Difference
from relight.engine.topology.status import CopyStatus

app = typer.Typer(help="The fleet's regions: what they are to be, and how they are.", no_args_is_help=True)

Named = Annotated[
    str | None, typer.Option("--topology", help="A TOML file, or embedded, zone or stretch; else RELIGHT_TOPOLOGY.")
]


def _named(here: Settings, named: str | None) -> str:
    if (found := named or here.topology) is None:
        fail("nothing says which topology: set RELIGHT_TOPOLOGY, or name it with --topology")
    return found


@app.command("plan")
def plan(named: Named = None, as_json: Json = False) -> None:
    """Show the difference between the topology and what runs; nothing is changed. Exit code 1 where there is any."""
    here = settings()
    found = run(topologies.plan_topology(here, _named(here, named)))
    if as_json:
        print_json({"differences": found})
    else:
        _show(found, done=False)
    if found:
        raise typer.Exit(1)


@app.command("apply")
def apply(
    named: Named = None,
    by: Annotated[str | None, typer.Option("--by", help="Who orders it; else the user of this shell.")] = None,
    as_json: Json = False,
) -> None:
    """Declare stream, contents, fleet, policies and queues as the topology says; a second time there is nothing to do.

    Exit code 1 where something is left that only the servers' own configuration can say.
    """
    here = settings()
    found = run(topologies.apply_topology(here, _named(here, named), by=by))
    left = [one for one in found if not one.applies]
    if as_json:
        print_json({"applied": [one for one in found if one.applies], "left": left})
    else:
        _show(found, done=True)
    if left:
        raise typer.Exit(1)


@app.command("status")
def status(named: Named = None, as_json: Json = False) -> None:
    """Compare last sequences per origin and copy, and how far each region's tables are. Exit code 1 on any trouble."""
    here = settings()
    found = run(topologies.topology_status(here, _named(here, named)))
    if as_json:
        print_json({**found.model_dump(mode="json"), "troubles": found.troubles})
    else:
        origins = list(found.copies[0].last) if found.copies else []
        columns = ("server", "region", "up", "fsyncs", "current", "last", "behind", *origins)
        rows = [[*_cells(one), *(one.last[origin] for origin in origins)] for one in found.copies]
        print_table(f"Copies of the log ({found.kind}, led by {found.leader or 'nobody'})", columns, rows)
        print_table(
            "Tables", ("region", "position", "behind"), ((one.region, one.position, one.behind) for one in found.tables)
        )
        out.print("acknowledged is on disks: proven" if found.proven else "acknowledged is on disks: not proven")
        for trouble in found.troubles:
            err.print(trouble, highlight=False, soft_wrap=True, markup=False)
    if found.troubles:
        raise typer.Exit(1)


@app.command("render")
def render(
    folder: Annotated[Path, typer.Argument(help="Where the files go, one for each server.")],
    named: Named = None,
    as_json: Json = False,
) -> None:
    """Write the nats-server configuration of each real machine: TLS, accounts, what each login may say and hear."""
    written = topologies.render_topology(_named(settings(), named), folder)
    if as_json:
        print_json({"written": [str(path) for path in written]})
        return
    for path in written:
        out.print(str(path), highlight=False, soft_wrap=True)


def _cells(one: CopyStatus) -> tuple[object, ...]:
    said = (_yes(one.answers), _yes(one.sync_always), _yes(one.current))
    return (one.server, one.region, *said, one.last_seq, one.behind)


def _yes(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _show(found: Sequence[Difference], *, done: bool) -> None:
    if not found:
        out.print("Nothing to do: all is as the topology says." if done else "No difference.")
        return
    print_table(
        None,
        ("what", "name", "found", "wanted", "done" if done else "by"),
        ((one.about.value, one.name, one.found, one.wanted, _by(one, done=done)) for one in found),
    )


def _by(one: Difference, *, done: bool) -> str:
    if one.applies:
        return "applied" if done else "relight topology apply"
    return "left: the server's configuration"


def up(here: Settings, named: str, region: str | None, *, restart: bool, with_stdin: bool, as_json: bool) -> None:
    """One region, or all of them."""
    if region is not None:

        def told(running: Running) -> None:
            _say(here, named, {region: running}, as_json=as_json)

        cut_off = run(engine.run_region(here, named, region, told, with_stdin=with_stdin), serving=True)
        for sentence in cut_off:
            err.print(f"cut off: {sentence}", highlight=False, soft_wrap=True, markup=False)
        err.print(f"region {region} is down; what was recorded stays in its home")
        return

    def all_told(regions: Mapping[str, Running]) -> None:
        _say(here, named, regions, as_json=as_json)

    def said(sentence: str) -> None:
        err.print(sentence, highlight=False, soft_wrap=True, markup=False)

    run(engine.run_regions(here, named, restart=restart, announce=all_told, said=said))
    err.print("all regions are down; what was recorded stays in their homes")


def _say(here: Settings, named: str, regions: Mapping[str, Running], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {"topology": named, "home": str(here.home), "regions": {name: vars(up) for name, up in regions.items()}}
        )
    else:
        out.print("[bold]relight is up[/], ends with Ctrl-C. Other commands of this home find it by themselves.")
        out.print(f"export RELIGHT_TOPOLOGY='{named}' RELIGHT_REGION=…", highlight=False, soft_wrap=True)
        for name, running in regions.items():
            api = running.health_url.removesuffix("/health")
            out.print(f"{name}: api {api}, health {running.health_url}", highlight=False, soft_wrap=True)
        out.print(f"data:   {here.home}/regions", highlight=False, soft_wrap=True)
    sys.stdout.flush()
