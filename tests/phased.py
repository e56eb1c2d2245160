"""What a run in phases is asked for on its command line, and how what it found is told."""

import json
from argparse import ArgumentParser
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol, TypeVar

from reporting import Report, machine, tell


class Phased(Protocol):
    """A frozen plan: which phases of those that there are, and how much of each."""

    @property
    def phases(self) -> Sequence[str]: ...


P = TypeVar("P", bound=Phased)


def asked(plan: P, *, named: str, about: str | None, options: Collection[str]) -> tuple[P, Path | None]:
    """The plan as the command line changes it, and the file that every figure goes to."""
    parser = ArgumentParser(prog=named, description=about)
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=f"of {', '.join(plan.phases)}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every figure")
    parser.add_argument("--logs", metavar="FOLDER", help="where to keep what the processes said")
    for name in options:
        default = getattr(plan, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{default} by default"
        )
    given = vars(parser.parse_args())
    to, phases = given.pop("json"), given.pop("phases")
    if unknown := set(phases) - set(plan.phases):
        parser.error(f"no phase {', '.join(sorted(unknown))}: choose from {', '.join(plan.phases)}")
    return replace(plan, **given, phases=tuple(phase for phase in plan.phases if phase in (phases or plan.phases))), to


def told(report: Report, plan: Phased, to: Path | None, *, caption: str) -> int:
    """On the terminal, and to the file; gives the exit code."""
    tell(report, caption=caption)
    if to:
        to.write_text(json.dumps({"machine": machine(), "plan": asdict(plan), **report.as_json()}, indent=2) + "\n")
    return 1 if report.broken else 0
