"""`relight query` and `relight digest`."""

from enum import StrEnum
from typing import Annotated

import typer

from relight.engine.app import tables as engine
from relight.engine.cli.output import Json, out, print_json, print_models, print_table, run, settings
from relight.engine.errors import QueryError
from relight.projections.catalog import queries
from relight.projections.query import DEFAULT_LIMIT


class Store(StrEnum):
    """Where tables are digested."""

    POSTGRES = "postgres"
    MEMORY = "memory"


def query(
    name: Annotated[str | None, typer.Argument(help="Which query; without it, all are listed.")] = None,
    arguments: Annotated[list[str] | None, typer.Argument(help="The query's parameters, as name=value.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose rows (RELIGHT_TENANT); - for the platform's.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many rows.")] = DEFAULT_LIMIT,
    as_json: Json = False,
) -> None:
    """Ask one of the declared queries, or list them."""
    if name is None:
        _list(as_json)
        return
    here = settings()
    rows = run(engine.ask(here, name, tenant=tenant or here.tenant, limit=limit, arguments=_parsed(arguments or [])))
    if as_json:
        print_json(rows)
    else:
        print_models(queries()[name].question, rows, empty="No rows.")


def _list(as_json: bool) -> None:
    listed = [
        {
            "name": query.name,
            "question": query.question,
            "parameters": {
                name: {"type": p.type.__name__, "required": p.required, "default": p.default, "help": p.help}
                for name, p in query.parameters.items()
            },
            "columns": list(query.row.model_fields),
        }
        for query in queries().values()
    ]
    if as_json:
        print_json(listed)
        return
    print_table(
        None,
        ("query", "question", "parameters"),
        (
            (
                query.name,
                query.question,
                ", ".join(f"{name}=" if p.required else f"[{name}=]" for name, p in query.parameters.items()),
            )
            for query in queries().values()
        ),
    )


def _parsed(arguments: list[str]) -> dict[str, object]:
    parsed: dict[str, object] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise QueryError(f"{argument!r} is no parameter: give it as name=value")
        parsed[name] = value
    return parsed


def digest(
    store: Annotated[Store, typer.Option(help="postgres: the live tables; memory: folded anew from the stream.")] = (
        Store.POSTGRES
    ),
    at: Annotated[int | None, typer.Option(help="Memory only: fold up to this stream sequence.")] = None,
    as_json: Json = False,
) -> None:
    """Print a SHA-256 for each table, with the position it holds for; equal tables have equal digests."""
    if store is Store.POSTGRES and at is not None:
        raise typer.BadParameter("PostgreSQL holds only its present position; use --store memory", param_hint="--at")
    found = run(engine.take_digest(settings(), memory=store is Store.MEMORY, up_to_seq=at))
    if as_json:
        print_json(found)
        return
    out.print(
        f"{found.store}, position {found.position}, {found.deadletters} dead letters", highlight=False, soft_wrap=True
    )
    print_table(
        None, ("table", "rows", "sha256"), ((name, found.rows[name], sha) for name, sha in found.tables.items())
    )
    if found.trimmed:
        print_models("Trimmed by retention; folded anew, these tables have those rows too", found.trimmed, empty="")
