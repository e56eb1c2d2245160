"""`relight fake-anthropic`."""

import asyncio
import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from relight.engine.cli.output import Json, out, run
from relight.engine.errors import SettingsError
from relight.engine.fake.lines import Line, Tally
from relight.engine.fake.mix import parse_mix
from relight.engine.fake.script import Script, load_script
from relight.engine.fake.seen import Seen
from relight.engine.fake.server import FakeAnthropic

VARIABLES = {"ANTHROPIC_BASE_URL": "", "ANTHROPIC_BEDROCK_BASE_URL": "", "ANTHROPIC_VERTEX_BASE_URL": "/v1"}
"""Of the SDK's clients, and what follows the address there."""


def fake_anthropic(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="On loopback; 0 is any free one.")] = 0,
    script: Annotated[
        Path | None, typer.Option(help="TOML or JSON: what each request meets.", show_default=False)
    ] = None,
    faults: Annotated[
        str | None,
        typer.Option(help="A mix, as '10% 529, 2% reset_before_headers'.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the mix: the same seed, the same faults.", show_default=False)
    ] = None,
    tokens_per_s: Annotated[
        float | None, typer.Option(min=0.01, help="Write as slowly as a model does.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a local Anthropic API that misbehaves as you say, to see what your agents make of that.

    It calls no model; its answers are made from the requests. Each request is a line when it is over, and Ctrl-C or
    SIGTERM ends it with a summary. With --json each line is a document: the address, the requests, the summary.
    """
    played, tally = _script(script, faults, seed), Tally()

    def ended(seen: Seen) -> None:
        tally.add(seen)
        line = Line.of(seen)
        _say(dataclasses.asdict(line) if as_json else str(line))

    async def serve() -> None:
        fake = FakeAnthropic(played, port=port, tokens_per_s=tokens_per_s, ended=ended, remembers=False)
        async with fake:
            _announce(fake.url, as_json)
            await asyncio.Event().wait()

    try:
        run(serve())
    except KeyboardInterrupt:
        _say(tally.document() if as_json else str(tally))


def _script(path: Path | None, faults: str | None, seed: int | None) -> Script:
    script = Script() if path is None else load_script(path)
    if faults is not None:
        try:
            script = script.model_copy(update={"faults": parse_mix(faults)})
        except ValueError as error:
            raise SettingsError(f"--faults: {error}") from error
    return script if seed is None else script.model_copy(update={"seed": seed})


def _announce(url: str, as_json: bool) -> None:
    if as_json:
        _say({"url": url})
        return
    out.print("[bold]A fake Anthropic listens[/], ends with Ctrl-C. Point a client at it:")
    for name, path in VARIABLES.items():
        _say(f"export {name}={url}{path}")
    _say("export ANTHROPIC_API_KEY=any")


def _say(what: str | dict[str, object]) -> None:
    text = what if isinstance(what, str) else orjson.dumps(what).decode()
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
