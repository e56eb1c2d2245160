"""`relight topology`, and `relight up` of one."""

import sys
from collections.abc import Mapping

from relight.engine.app import topology as engine
from relight.engine.cli.output import err, out, print_json, run
from relight.engine.embedded.home import Running
from relight.engine.settings import Settings


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
