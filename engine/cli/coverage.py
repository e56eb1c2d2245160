"""`relight coverage`."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from relight.engine.app import covering as engine
from relight.engine.cli.counted_calls import show_compared
from relight.engine.cli.output import Json, err, out, print_json, print_table, progress, run, settings
from relight.engine.coverage.config import CoverageConfig, load_config
from relight.engine.coverage.models import Guarded, Site
from relight.engine.coverage.report import Report
from relight.engine.coverage.runtime import Agreement, Compared, compare
from relight.engine.errors import CoverageError

SLOW_S = 1.0
"""After which a bar is shown."""


def coverage(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders to read.", show_default=False)],
    fail_under: Annotated[
        float | None, typer.Option(min=0, max=100, help="Fail when fewer percent of the calls are guarded.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file; without it, [tool.relight.coverage] of the nearest pyproject.toml.")
    ] = None,
    include_tests: Annotated[bool, typer.Option("--include-tests", help="Count the calls in tests, too.")] = False,
    runtime: Annotated[
        bool, typer.Option("--runtime", help="Compare with the calls that were counted (RELIGHT_COUNT_CALLS=true).")
    ] = False,
    since: Annotated[
        datetime | None, typer.Option(help="With --runtime: counted from then on, UTC; the last 30 days without it.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="With --runtime: whose calls (RELIGHT_TENANT).")] = None,
    as_json: Json = False,
) -> None:
    """Find every Anthropic client and call in Python, TypeScript and JavaScript sources, and say which are unguarded.

    Nothing is imported or run. Exit code 0; 1 when fewer calls are guarded than asked for, when nothing could be read,
    or when calls were made without a Guard where the sources say that one is in; 2 for wrong usage or configuration.
    """
    try:
        told = load_config(paths, config)
        report = _read(paths, told, include_tests)
    except CoverageError as error:
        err.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    compared = None
    if runtime:
        begin = since.replace(tzinfo=since.tzinfo or UTC) if since is not None else None
        compared = compare(report.sites, run(engine.seen_calls(settings(), tenant=tenant, since=begin)))
    asked = fail_under if fail_under is not None else told.fail_under
    if as_json:
        print_json(document(report, asked, compared))
    else:
        _show(report, asked)
        if compared is not None:
            show_compared(compared)
    contradicted = any(one.agreement is Agreement.CONTRADICTED for one in compared or ())
    if not report.read_anything or (asked is not None and not report.reaches(asked)) or contradicted:
        raise typer.Exit(1)


def _read(paths: list[Path], config: CoverageConfig, include_tests: bool) -> Report:
    with progress() as bar:
        task = bar.add_task("reading", total=None, visible=False)

        def advanced(done: int, of: int) -> None:
            elapsed = bar.tasks[task].elapsed or 0
            bar.update(task, completed=done, total=of, visible=elapsed > SLOW_S)

        return engine.cover(paths, config, count_tests=include_tests, advanced=advanced)


def document(
    report: Report, fail_under: float | None, compared: tuple[Compared, ...] | None = None
) -> dict[str, object]:
    """All of it as JSON."""
    told: dict[str, object] = {} if compared is None else {"runtime": [_compared(one) for one in compared]}
    return told | {
        "percent_guarded": report.percent,
        "fail_under": fail_under,
        "passes": report.read_anything and (fail_under is None or report.reaches(fail_under)),
        "calls": {str(guarded): report.count(guarded) for guarded in Guarded},
        "tests_counted": report.count_tests,
        "files": report.files,
        "sites": [dataclasses.asdict(site) for site in report.sites],
        "not_understood": [dataclasses.asdict(one) for one in report.not_understood],
    }


def _compared(one: Compared) -> dict[str, object]:
    fields = dataclasses.asdict(one)
    return fields | {"site": one.site and f"{one.site.path}:{one.site.line}"}


def _show(report: Report, fail_under: float | None) -> None:
    if open_calls := [site for site in report.calls if site.guarded is not Guarded.YES]:
        rows = ([_where(site), site.what, _judgement(site), _urgency(site), site.why] for site in open_calls)
        print_table("Calls that no Guard is known to be in, most urgent first", CALL_COLUMNS, rows)
    if report.clients:
        rows = ([_where(site), site.what, _judgement(site), site.why] for site in report.clients)
        print_table("Clients", CLIENT_COLUMNS, rows)
    for line in (*_warnings(report), *_not_understood(report), *_summary(report, fail_under)):
        out.print(Text(line), soft_wrap=True)


CALL_COLUMNS = ("where", "calls", "guarded", "urgent because it is", "why it counts so")
CLIENT_COLUMNS = ("where", "constructs", "guarded", "why it counts so")


def _where(site: Site) -> str:
    return f"{site.path}:{site.line}"


def _judgement(site: Site) -> str:
    return "unknown" if site.guarded is Guarded.UNKNOWN else site.guarded.value


def _urgency(site: Site) -> str:
    if site.in_test:
        return "in a test"
    return "; ".join(reason.note for reason in site.reasons) or "-"


def _warnings(report: Report) -> Iterator[str]:
    for site in report.sites:
        for warning in site.warnings:
            yield f"warning: {_where(site)} {site.what}: {warning}"


def _not_understood(report: Report) -> Iterator[str]:
    for one in report.not_understood:
        line = f":{one.line}" if one.line is not None else ""
        yield f"not understood: {one.path}{line}: {one.why}"
    if report.not_understood:
        files = len({one.path for one in report.not_understood})
        yield f"unknown: what is called in {files} of the files, which are not understood"


def _summary(report: Report, fail_under: float | None) -> Iterator[str]:
    if not report.read_anything:
        yield "nothing could be read: no Python, TypeScript or JavaScript file among these paths"
        return
    yes, no, unknown = (report.count(guarded) for guarded in (Guarded.YES, Guarded.NO, Guarded.UNKNOWN))
    tests = sum(site.in_test for site in report.calls)
    beside = f"; {tests} calls in tests are listed and not counted" if tests and not report.count_tests else ""
    if report.percent is None:
        yield f"no call of a model in {report.files} files{beside}"
        return
    yield (
        f"{_rounded_down(report.percent)} % of {len(report.counted)} calls are guarded: {yes} guarded, {no} not,"
        f" {unknown} not known, in {report.files} files{beside}"
    )
    if fail_under is not None:
        verdict = "reached" if report.reaches(fail_under) else "not reached"
        yield f"asked for: {fail_under:g} %, {verdict}"


def _rounded_down(percent: float) -> str:
    """100 is all of them, and not nearly all."""
    return f"{int(percent * 10) / 10:g}"
