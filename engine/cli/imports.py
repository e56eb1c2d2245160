"""`relight import`: what other systems recorded, as events; importing again adds nothing."""

from pathlib import Path
from typing import Annotated

import typer

from relight.engine.app import connections
from relight.engine.app import importing as engine
from relight.engine.cli.output import Json, err, fail, out, print_json, progress, run, settings
from relight.engine.importers.agent_log import AGENT_LOG
from relight.engine.importers.azure_llm import AZURE_LLM
from relight.engine.importers.identity import Format, Malformed, Owner
from relight.engine.importers.importing import ImportedFile
from relight.engine.importers.scanning import Scan, scan
from relight.engine.settings import Settings

MAX_PRINTED = 20
"""Malformed lines shown of each file; `--json` has more of them."""

app = typer.Typer(help="Import what other systems recorded.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(help="The files, in any order.", show_default=False)]
Tenant = Annotated[str | None, typer.Option(help="Whose they are.", show_default="RELIGHT_TENANT")]
Strict = Annotated[bool, typer.Option("--strict", help="Import nothing when anything is malformed.")]


@app.command("azure-llm")
def azure_llm(files: Files, tenant: Tenant = None, strict: Strict = False, as_json: Json = False) -> None:
    """AzureLLMInferenceTrace_*.csv: one agent call a row, its times taken for UTC."""
    _import(files, AZURE_LLM, tenant=tenant, strict=strict, as_json=as_json)


@app.command("agent-log")
def agent_log(files: Files, tenant: Tenant = None, strict: Strict = False, as_json: Json = False) -> None:
    """Failed runs of agents, one JSON file each, with who made the decisive mistake at which step."""
    _import(files, AGENT_LOG, tenant=tenant, strict=strict, as_json=as_json)


def _import(files: list[Path], format: Format, *, tenant: str | None, strict: bool, as_json: bool) -> None:
    configured = settings().overridden({} if tenant is None else {"tenant": tenant})
    owner = Owner(tenant=configured.tenant, region=configured.region)
    with progress() as bar:
        task = bar.add_task("reading", total=len(files))
        scans = []
        for file in files:
            scans.append(scan(file, format, owner, clock=connections.clock()))
            bar.advance(task)
    if strict and (bad := next((found for found in scans if found.malformed), None)):
        count = sum(found.malformed_rows for found in scans)
        fail(
            f"nothing was imported, as {count} {_malformed(format)} are malformed, the first"
            f" {_where(str(bad.path), bad.malformed[0])}; correct them, or leave --strict away"
        )
    imported = run(_record(scans, configured))
    if as_json:
        print_json({"files": imported, format.rows: sum(file.rows for file in imported)})
    else:
        _print(imported, format)


async def _record(scans: list[Scan], configured: Settings) -> list[ImportedFile]:
    with progress() as bar:
        task = bar.add_task("importing", total=sum(found.rows for found in scans))
        return await engine.import_files(configured, scans, advanced=lambda rows: bar.advance(task, rows))


def _print(files: list[ImportedFile], format: Format) -> None:
    for file in files:
        for bad in file.malformed[:MAX_PRINTED]:
            err.print(_where(file.file, bad), style="yellow", markup=False, highlight=False)
        if file.malformed_lines > MAX_PRINTED:
            more = file.malformed_lines - min(MAX_PRINTED, len(file.malformed))
            err.print(f"{file.file}: and {more} more malformed lines", style="yellow", markup=False, highlight=False)
        out.print(f"{file.file}: {_said(file, format)}", markup=False, highlight=False, soft_wrap=True)
    if len(files) > 1:
        out.print(f"{sum(file.rows for file in files):,} {format.rows} in all", highlight=False)


def _said(file: ImportedFile, format: Format) -> str:
    match file:
        case ImportedFile(rows=0):
            said = f"no {format.rows} in it"
        case ImportedFile(key=str(), imported=0):
            said = f"already imported as {file.key}: nothing added"
        case ImportedFile(key=str()):
            said = f"imported as {file.key}"
        case ImportedFile(imported=0):
            said = f"{file.rows:,} {format.rows} already imported: nothing added"
        case ImportedFile(already=0):
            said = f"{file.imported:,} {format.rows} imported"
        case _:
            said = f"{file.imported:,} {format.rows} imported, {file.already:,} were there already"
    if file.malformed_lines and not format.one_a_file:
        said += f"; {file.malformed_lines:,} malformed lines left out"
    return said


def _malformed(format: Format) -> str:
    return "files" if format.one_a_file else "lines"


def _where(file: str, malformed: Malformed) -> str:
    return f"{file}{'' if malformed.line is None else f' line {malformed.line}'}: {malformed.reason}"
