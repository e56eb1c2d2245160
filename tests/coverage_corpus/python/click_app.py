"""A command line."""

import click
import relight
from anthropic import Anthropic


@click.group()
@click.pass_context
def cli(ctx):
    ctx.ensure_object(dict)
    ctx.obj["client"] = Anthropic()  # expect: client unguarded


@cli.command()
@click.argument("text")
@click.pass_context
def ask(ctx, text):
    client = ctx.obj["client"]
    click.echo(client.messages.create(model="m", max_tokens=1, messages=[text]))  # expect: call unguarded


@cli.command()
@click.option("--times", default=3)
def many(times):
    with relight.open_sync() as r:
        client = r.guarded(Anthropic())  # expect: client guarded
        for _ in range(times):
            client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
