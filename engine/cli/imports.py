"""`relight import`: what other systems recorded, as events; importing again adds nothing."""

from pathlib import Path
from typing import Annotated

import typer

from relight.engine import app as engine
from relight.engine.cli.output import Json, err, fail, out, print_json, progress, run, settings
from relight.engine.importers.azure_llm import AZURE_LLM
from relight.engine.importers.identity import Format, Owner
from relight.engine.importers.importing import ImportedFile, Scan, scan
from relight.engine.settings import Settings

MAX_PRINTED = 20
"""Malformed lines shown of each file; `--json` has more of them."""

app = typer.Typer(help="Import what other systems recorded.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(help="The files, in any order.", show_default=False)]
Tenant = Annotated[str | None, typer.Option(help="Whose calls these are.", show_default="RELIGHT_TENANT")]
Strict = Annotated[bool, typer.Option("--strict", help="Import nothing when a line is malformed.")]


@app.callback()
def imports() -> None:
    """A callback keeps a single command from taking the group's place."""


@app.command("azure-llm")
def azure_llm(files: Files, tenant: Tenant = None, strict: Strict = False, as_json: Json = False) -> None:
    """AzureLLMInferenceTrace_*.csv: one agent call a row, its times taken for UTC."""
    _import(files, AZURE_LLM, tenant=tenant, strict=strict, as_json=as_json)


def _import(files: list[Path], format: Format, *, tenant: str | None, strict: bool, as_json: bool) -> None:
    configured = settings().overridden({} if tenant is None else {"tenant": tenant})
    owner = Owner(tenant=configured.tenant, region=configured.region)
    with progress() as bar:
        task = bar.add_task("reading", total=len(files))
        scans = []
        for file in files:
            scans.append(scan(file, format, owner, clock=engine.clock()))
            bar.advance(task)
    if strict and (bad := next((found for found in scans if found.malformed), None)):
        count, first = sum(found.malformed_lines for found in scans), bad.malformed[0]
        fail(
            f"nothing was imported, as {count} lines are malformed, the first {bad.path} line {first.line}:"
            f" {first.reason}; correct them, or leave --strict away"
        )
    imported = run(_record(scans, configured))
    if as_json:
        print_json({"files": imported, "calls": sum(file.rows for file in imported)})
    else:
        _print(imported)


async def _record(scans: list[Scan], configured: Settings) -> list[ImportedFile]:
    with progress() as bar:
        task = bar.add_task("importing", total=sum(found.rows for found in scans))
        return await engine.import_files(configured, scans, advanced=lambda rows: bar.advance(task, rows))


def _print(files: list[ImportedFile]) -> None:
    for file in files:
        for bad in file.malformed[:MAX_PRINTED]:
            err.print(f"{file.file} line {bad.line}: {bad.reason}", style="yellow", markup=False, highlight=False)
        if file.malformed_lines > MAX_PRINTED:
            more = file.malformed_lines - min(MAX_PRINTED, len(file.malformed))
            err.print(f"{file.file}: and {more} more malformed lines", style="yellow", markup=False, highlight=False)
        match file:
            case ImportedFile(rows=0):
                said = "no calls in it"
            case ImportedFile(imported=0):
                said = f"{file.rows:,} calls already imported: nothing added"
            case ImportedFile(already=0):
                said = f"{file.imported:,} calls imported"
            case _:
                said = f"{file.imported:,} calls imported, {file.already:,} were there already"
        bad_lines = f"; {file.malformed_lines:,} malformed lines left out" if file.malformed_lines else ""
        out.print(f"{file.file}: {said}{bad_lines}", markup=False, highlight=False, soft_wrap=True)
    if len(files) > 1:
        out.print(f"{sum(file.rows for file in files):,} calls in all", highlight=False)
