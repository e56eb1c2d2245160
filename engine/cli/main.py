"""`relight`: every command, and the one place where errors become a sentence and an exit code."""

import gc
import logging
import os
import sys

import typer
from rich.logging import RichHandler

from relight.engine.cli import (
    archive,
    asyncapi,
    coverage,
    data,
    deadletters,
    demo,
    doctor,
    drill,
    erase,
    events,
    failover,
    failover_receipts,
    fake_anthropic,
    heal,
    imports,
    operate,
    rebuild,
    restore,
    retention,
    spool,
    status,
    task,
    tokens,
    topology,
    verify,
)
from relight.engine.cli.output import err, fail
from relight.engine.errors import RelightError

app = typer.Typer(
    name="relight",
    help="Event-sourced resilience for fleets of AI agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("demo")(demo.demo)
app.command("drill")(drill.drill)
app.command("up")(operate.up)
app.command("serve")(operate.serve)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("migrate")(operate.migrate_command)
app.command("query")(data.query)
app.command("digest")(data.digest)
app.command("heal")(heal.heal)
app.command("verify")(verify.verify)
app.command("asyncapi")(asyncapi.asyncapi)
app.command("coverage")(coverage.coverage)
app.command("fake-anthropic")(fake_anthropic.fake_anthropic)
app.command("rebuild")(rebuild.rebuild)
app.command("restore")(restore.restore)
app.command("erase")(erase.erase)
app.add_typer(archive.app, name="archive")
app.add_typer(deadletters.app, name="deadletter")
app.add_typer(retention.app, name="retention")
app.add_typer(events.app, name="event")
failover.app.add_typer(failover_receipts.app)
app.add_typer(failover.app, name="failover")
app.add_typer(spool.app, name="spool")
app.add_typer(imports.app, name="import")
app.add_typer(task.app, name="task")
app.add_typer(tokens.app, name="token")
app.add_typer(topology.app, name="topology")


@app.callback()
def options(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what happens, and show tracebacks."),
) -> None:
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", handlers=[RichHandler(console=err, show_path=False)])


def main() -> None:
    """Exit codes: 0 done, 1 failed or unhealthy, 2 wrong usage, 130 interrupted."""
    # Thousands of events live at once in a fold: looking for cycles among them every 700 costs a sixth of it.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        app()
    except RelightError as error:
        if "-v" in sys.argv or "--verbose" in sys.argv:
            raise
        try:
            fail(error)
        except typer.Exit as exit_:
            sys.exit(exit_.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
