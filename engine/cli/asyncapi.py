"""`relight asyncapi`."""

import sys
from typing import Annotated

import typer

from relight.engine.cli.output import print_json, settings


def asyncapi(
    as_json: Annotated[bool, typer.Option("--json/--yaml", help="In which form.")] = True,
) -> None:
    """Print the AsyncAPI 3 document of what is taken, answered and published over NATS; no server is asked."""
    from relight.engine.messaging.asyncapi import SERVER, document  # brings a library that no other command needs
    from relight.engine.messaging.yaml import as_yaml

    told = document(settings().nats_url or SERVER)
    if as_json:
        print_json(told)
    else:
        sys.stdout.write(as_yaml(told))
