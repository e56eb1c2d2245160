"""`relight event tail|count|show`."""

import asyncio
from collections import Counter
from typing import Annotated

import orjson
import typer
from nats.aio.client import Client

from relight.engine.app import connections as engine
from relight.engine.cli.output import Json, fail, out, print_json, print_table, progress, run, settings
from relight.engine.log.events import StoredEvent, find_event, follow, read_all

app = typer.Typer(help="Events as they stand on the stream.", no_args_is_help=True)


@app.command()
def tail(
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Begin with so many of the latest.")] = 10,
    keep_on: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what arrives, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event's bytes, one a line.")] = False,
) -> None:
    """Show the latest events."""

    async def work() -> None:
        async with engine.stream_client(settings()) as client:
            async for stored in follow(client, last=last, forever=keep_on):
                _show_line(stored, as_json)

    run(work())


@app.command()
def count(as_json: Json = False) -> None:
    """Count the events on the stream by type; what is no event of this release counts as its reason."""

    async def work() -> Counter[str]:
        async with engine.stream_client(settings()) as client:
            return await _counted(client)

    found = run(work())
    if as_json:
        print_json({"events": sum(found.values()), "types": dict(sorted(found.items()))})
    else:
        print_table(None, ("type", "events"), [*sorted(found.items()), ("all", sum(found.values()))])


async def _counted(client: Client) -> Counter[str]:
    found: Counter[str] = Counter()
    with progress() as bar:
        task = bar.add_task("reading", total=None)
        async for batch, total in read_all(client):
            bar.update(task, total=total, advance=len(batch))
            found.update(stored.type for stored in batch)
            await asyncio.sleep(0)
    return found


@app.command()
def show(event_id: Annotated[str, typer.Argument(help="The event's id.")], as_json: Json = False) -> None:
    """Show one event, wherever it stands; exit code 1 when it is not on the stream."""

    async def work() -> StoredEvent | None:
        async with engine.stream_client(settings()) as client:
            return await find_event(client, event_id)

    found = run(work())
    if found is None:
        fail(f"event {event_id} is not on the stream: was it recorded there, and is its spool drained?")
    if as_json:
        print_json(
            {
                "seq": found.message.seq,
                "subject": found.message.subject,
                "timestamp": found.message.timestamp,
                "sha256": found.sha256,
                "event": orjson.loads(found.message.body),
            }
        )
        return
    out.print(f"seq       {found.message.seq}\nsubject   {found.message.subject}", highlight=False, markup=False)
    out.print(f"stored    {found.message.timestamp}\nsha256    {found.sha256}", highlight=False, markup=False)
    pretty = orjson.dumps(orjson.loads(found.message.body), option=orjson.OPT_INDENT_2).decode()
    out.print(pretty, highlight=False, markup=False, soft_wrap=True)


def _show_line(stored: StoredEvent, as_json: bool) -> None:
    if as_json:
        typer.echo(stored.message.body.decode(errors="backslashreplace"))
        return
    message = stored.message
    entity = stored.event.subject if stored.event else stored.detail
    tenant = stored.event.tenant if stored.event else "?"
    out.print(
        f"{message.seq:>8}  {message.timestamp:%Y-%m-%d %H:%M:%S}  {stored.type:32} {tenant:12} {entity}"
        f"  {stored.event.id if stored.event else ''}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
