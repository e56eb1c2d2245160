"""`relight failover plan|start|status|back|override|abort`."""

import getpass
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from relight.engine.app import failing_over as engine
from relight.engine.cli.output import Json, err, fail, out, print_json, print_table, run, settings
from relight.engine.policies.failover_commands import Life, RuleResult, Sight, Start
from relight.engine.policies.routing import moved
from relight.engine.regions.commands import Ruled
from relight.events.failover import Manner

T = TypeVar("T")

app = typer.Typer(help="Move a region's traffic to another one, and back.", no_args_is_help=True)

Region = Annotated[str, typer.Argument(help="The region that traffic leaves.")]
To = Annotated[str | None, typer.Option("--to", help="Who is to stand in; else the first fallback that may.")]
Forced = Annotated[bool, typer.Option("--forced", help="Switch it off at once, with work in hand.")]
By = Annotated[str | None, typer.Option("--by", help="Who orders it; else the user of this shell.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the ruling.")]
FleetName = Annotated[str | None, typer.Option("--fleet", help="Of which fleet; else the topology's, or agents.")]


def _with_fleet(name: str | None, work: Callable[[engine.Fleet], Awaitable[T]]) -> T:
    here = settings()

    async def working() -> T:
        async with engine.opened_fleet(here, name) as fleet:
            return await work(fleet)

    return run(working())


def _operator(by: str | None) -> str:
    return by or getpass.getuser()


@app.command("plan")
def plan(
    source: Region,
    to: To = None,
    forced: Forced = False,
    by: By = None,
    reason: Reason = "a plan",
    fleet: FleetName = None,
    as_json: Json = False,
) -> None:
    """Say what would move, and which rules hold; nothing is changed. Exit code 1 where a rule is broken."""
    manner = Manner.FORCED if forced else Manner.GRACEFUL
    planned = _with_fleet(
        fleet, lambda it: it.plan(source, to=to, manner=manner, ordered_by=_operator(by), reason=reason)
    )
    _show_plan(planned, as_json=as_json)
    if not planned.checked.allowed:
        raise typer.Exit(1)


@app.command("start")
def start(
    source: Region,
    reason: Reason,
    to: To = None,
    forced: Forced = False,
    by: By = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="As plan: nothing is changed.")] = False,
    wait_s: Annotated[float, typer.Option("--wait", help="Seconds to wait for its completion; 0: none.")] = 120,
    fleet: FleetName = None,
    as_json: Json = False,
) -> None:
    """Move a region's traffic: drained first, or forced. Exit code 1 where a rule forbids it, or it takes too long."""
    manner = Manner.FORCED if forced else Manner.GRACEFUL
    if dry_run:
        plan(source, to, forced, by, reason, fleet, as_json)
        return

    async def started(it: engine.Fleet) -> tuple[Ruled, bool]:
        ruled = await it.commands.start(source, to=to, manner=manner, ordered_by=_operator(by), reason=reason)
        if not as_json:
            err.print(f"failover {ruled.failover} begins", highlight=False)
        return ruled, not wait_s or await it.completed(ruled, within_s=wait_s)

    ruled, stands = _with_fleet(fleet, started)
    if not stands:
        fail(f"failover {ruled.failover} was taken back before it was completed: see `relight failover status`")
    _show_ruled(ruled, as_json=as_json)
    if wait_s and not as_json:
        out.print(f"failover {ruled.failover} is completed", highlight=False, soft_wrap=True)


@app.command("back")
def back(region: Region, reason: Reason, by: By = None, fleet: FleetName = None, as_json: Json = False) -> None:
    """Give a region its traffic back, once it has caught up. Exit code 1 where a rule forbids it."""
    ruled = _with_fleet(fleet, lambda it: it.commands.back(region, ordered_by=_operator(by), reason=reason))
    _show_ruled(ruled, as_json=as_json)


@app.command("abort")
def abort(
    reason: Reason,
    failover: Annotated[str | None, typer.Argument(help="Its id; else the one that is under way.")] = None,
    by: By = None,
    fleet: FleetName = None,
    as_json: Json = False,
) -> None:
    """Take back a failover that is not completed. Exit code 1 where a rule forbids it."""
    ruled = _with_fleet(fleet, lambda it: it.commands.abort(failover, ordered_by=_operator(by), reason=reason))
    _show_ruled(ruled, as_json=as_json)


@app.command("override")
def override(
    rules: Annotated[list[str], typer.Argument(help="Rules to suspend; with --end, the override's id.")],
    reason: Reason,
    for_s: Annotated[float, typer.Option("--for", help="Seconds; it ends by itself.")] = 900,
    end: Annotated[bool, typer.Option("--end", help="End an override before its time.")] = False,
    by: By = None,
    fleet: FleetName = None,
    as_json: Json = False,
) -> None:
    """Suspend some rules for a while. Exit code 1 for rules that nobody may suspend."""

    async def ruling(it: engine.Fleet) -> Ruled:
        if end:
            return await it.commands.restore(rules[0], ordered_by=_operator(by), reason=reason)
        return await it.commands.override(*rules, for_s=for_s, ordered_by=_operator(by), reason=reason)

    _show_ruled(_with_fleet(fleet, ruling), as_json=as_json)


@app.command("status")
def status(fleet: FleetName = None, as_json: Json = False) -> None:
    """Where the traffic goes, who is alive, and what is suspended. Exit code 1 where the fleet is not declared."""
    found = _with_fleet(fleet, lambda it: it.status())
    routing = found.state.routing
    if routing is None:
        fail(f"fleet {found.state.fleet} is not declared: run `relight topology apply`")
    if as_json:
        lives = {name: sight.life.value for name, sight in found.sights.items()}
        print_json(
            {"fleet": found.state.fleet, "rev": found.state.rev, "alive": lives, "routing": routing}
            | {"blocked": None if found.blocked is None else _plain(found.blocked)}
        )
        return
    rows = []
    for region in routing.regions:
        sight = found.sights.get(region.name, Sight())
        goes_to = moved(routing, region.name)
        state = "takes traffic" if region.name in routing.active else f"{goes_to} stands in"
        caught_up = "yes" if sight.caught_up else "no" if sight.life is Life.ALIVE else "-"
        rows.append((region.name, state, sight.life.value, caught_up, region.residency))
    print_table(f"fleet {found.state.fleet}", ("region", "traffic", "alive", "caught up", "residency"), rows)
    if found.blocked is not None:
        err.print(
            f"a failover is due, and is not done ({found.blocked.rule.value}): {found.blocked.detail}", markup=False
        )
    for one in routing.standing:
        out.print(
            f"failover {one.failover}: {one.source_region} to {one.target_region}, {one.phase.value} since"
            f" {one.since:%Y-%m-%d %H:%M:%S}Z",
            highlight=False,
            soft_wrap=True,
        )
    for suspended in routing.overrides:
        out.print(
            f"override {suspended.override}: {', '.join(suspended.rules)} until {suspended.expires_at:%H:%M:%S}Z, by"
            f" {suspended.ordered_by}: {suspended.reason}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )


def _show_plan(planned: engine.Plan, *, as_json: bool) -> None:
    command, results, moves = planned.checked.command, planned.checked.results, planned.moves
    assert isinstance(command, Start)
    if as_json:
        print_json(
            {
                "source": command.source,
                "target": command.target,
                "manner": command.manner.value,
                "allowed": planned.checked.allowed,
                "rules": [_plain(result) for result in results],
                "moves": vars(moves),
            }
        )
        return
    queues = "unknown" if moves.queues is None else ", ".join(moves.queues) or "none"
    tasks = "unknown" if moves.tasks is None else str(moves.tasks)
    publishers = ", ".join(moves.publishers) or "none heard"
    out.print(f"{command.source} to {command.target}, {command.manner.value}", highlight=False)
    out.print(f"tasks: {tasks}; queues: {queues}; publishers: {publishers}", highlight=False, soft_wrap=True)
    print_table(
        None, ("rule", "holds", "why"), [(result.rule.value, _held(result), result.detail) for result in results]
    )


def _show_ruled(ruled: Ruled, *, as_json: bool) -> None:
    event = ruled.tail.event
    assert event is not None
    if as_json:
        print_json(
            {
                "ruling": event.id,
                "type": event.type,
                "id": ruled.failover,
                "rev": ruled.tail.rev,
                "rules": [_plain(result) for result in ruled.results],
                "active": ruled.state.routing.active if ruled.state.routing else (),
            }
        )
        return
    active = ", ".join(ruled.state.routing.active) if ruled.state.routing else ""
    out.print(f"{event.type} {ruled.failover}: {active} take traffic", highlight=False, soft_wrap=True)


def _held(result: RuleResult) -> str:
    return "yes" if result.held else "suspended" if result.override else "NO"


def _plain(result: RuleResult) -> dict[str, object]:
    return {
        "rule": result.rule.value,
        "held": result.held,
        "override": result.override,
        "detail": result.detail,
    }
