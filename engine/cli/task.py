"""`relight task submit|list|show`."""

import sys
from typing import Annotated

import typer

from relight.engine.app import tasks as engine
from relight.engine.cli.output import Json, out, print_json, print_models, run, settings
from relight.engine.policies.reassignment import MAX_ATTEMPTS
from relight.events.tasks import TaskStatus

app = typer.Typer(help="Tasks for workers: submit, list, show; of the tenant RELIGHT_TENANT.", no_args_is_help=True)


@app.command()
def submit(
    queue: Annotated[str, typer.Argument(help="Whoever works on this queue gets it.")],
    payload: Annotated[
        str | None, typer.Argument(help="Its payload: JSON, or any text; - reads bytes from standard input.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Its name; the same name again changes nothing.")] = None,
    priority: Annotated[int, typer.Option(help="The highest of a tenant's tasks goes first.")] = 0,
    delay_s: Annotated[float, typer.Option(min=0, help="It is not worked on earlier.")] = 0,
    max_attempts: Annotated[int, typer.Option(min=1, help="After so many it is given up.")] = MAX_ATTEMPTS,
    as_json: Json = False,
) -> None:
    """Submit a task; it is durable when this returns."""
    body = None
    if payload is not None:
        body = sys.stdin.buffer.read() if payload == "-" else payload.encode()
    submitted = run(
        engine.submit(
            settings(),
            queue,
            body,
            task=task,
            priority=priority,
            delay_s=delay_s,
            max_attempts=max_attempts,
        )
    )
    said = {"task": submitted.task, "tenant": submitted.tenant, "queue": submitted.state.queue}
    if as_json:
        print_json({**said, "rev": submitted.tail.rev, "seq": submitted.tail.seq, "status": submitted.state.status})
    else:
        out.print(submitted.task, highlight=False, markup=False, soft_wrap=True)


@app.command("list")
def list_(
    queue: Annotated[str | None, typer.Option(help="Those that wait in this queue, whatever --status says.")] = None,
    status: Annotated[TaskStatus, typer.Option(help="Those of this status, the latest first.")] = TaskStatus.PENDING,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List tasks, as far as they are projected."""
    found = run(engine.list_tasks(settings(), queue=queue, status=status.value, limit=limit))
    if as_json:
        print_json(found)
    else:
        print_models(None, found, empty="No such tasks.")


@app.command()
def show(task: Annotated[str, typer.Argument(help="The task.")], as_json: Json = False) -> None:
    """Show a task as its last ruling has it, and how it moved from owner to owner."""
    shown = run(engine.show(settings(), task))
    if as_json:
        state = shown.state.model_dump(mode="json")
        print_json({"task": task, "ruling": shown.ruling, "rev": shown.rev, **state, "history": shown.history})
        return
    said = {"task": task, "ruling": shown.ruling, "rev": shown.rev, **shown.state.model_dump(mode="json")}
    for name, value in said.items():
        out.print(f"{name:13} {'-' if value is None else value}", highlight=False, markup=False, soft_wrap=True)
    print_models(None, shown.history, empty="Nobody lost it or gave it back.")
