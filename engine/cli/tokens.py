"""`relight token create|list|revoke`."""

import re
from datetime import timedelta
from typing import Annotated

import typer

from relight.engine.app import connections as engine
from relight.engine.cli.output import Json, err, out, print_json, print_table, run, settings
from relight.engine.tables import tokens
from relight.engine.tables.tokens import Tier, TokenRole

SECONDS = {"m": 60, "h": 3_600, "d": 86_400}
NEVER = "never"

app = typer.Typer(help="Bearer tokens of the HTTP API: create, list, revoke.", no_args_is_help=True)


def _lifetime(text: str) -> str:
    if text != NEVER and not re.fullmatch(r"[1-9]\d{0,5}[mhd]", text):
        raise typer.BadParameter("a number of minutes, hours or days, as in 90m, 12h or 30d; or never")
    return text


@app.command()
def create(
    role: Annotated[TokenRole, typer.Option(help="publisher sends events, reader asks queries, operator does both.")],
    tenant: Annotated[str | None, typer.Option(help="Whose (RELIGHT_TENANT); - for the platform's.")] = None,
    tier: Annotated[Tier, typer.Option(help="How often it may ask.")] = Tier.STANDARD,
    name: Annotated[str, typer.Option(help="Who or what uses it.")] = "",
    expires_in: Annotated[str, typer.Option(callback=_lifetime, help="As in 90m, 12h, 30d; or never.")] = "90d",
    as_json: Json = False,
) -> None:
    """Make a token; its text is shown this once."""
    here = settings()
    now = engine.clock().now()
    lasts = None if expires_in == NEVER else timedelta(seconds=int(expires_in[:-1]) * SECONDS[expires_in[-1]])
    token, text = run(
        engine.with_pool(
            here,
            lambda pool: tokens.create(
                pool,
                tenant=tenant or here.tenant,
                role=role,
                tier=tier,
                name=name,
                now=now,
                expires_at=None if lasts is None else now + lasts,
            ),
        )
    )
    if as_json:
        print_json({"id": token.id, "token": text, "expires_at": token.expires_at})
        return
    out.print(text, highlight=False, soft_wrap=True)
    err.print(f"Keep it now: it is not shown again. It is revoked with: relight token revoke {token.id}")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List every token, without its secret."""
    found = run(engine.with_pool(settings(), tokens.list_tokens))
    if as_json:
        print_json(found)
        return
    columns = ("id", "name", "tenant", "role", "tier", "created_at", "expires_at", "revoked_at")
    print_table(None, columns, ([getattr(token, column) for column in columns] for token in found))


@app.command()
def revoke(id: Annotated[str, typer.Argument(help="The part between the underscores.")], as_json: Json = False) -> None:
    """Revoke a token: every process refuses it within seconds. Exit code 1 when there is none of this id."""
    now = engine.clock().now()
    token = run(engine.with_pool(settings(), lambda pool: tokens.revoke(pool, id, now=now)))
    if as_json:
        print_json(token)
    else:
        out.print(f"{token.id} is revoked", highlight=False)
