"""What the programs of the corpus say of themselves: `# expect: call guarded, client unguarded warned`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from relight.engine.coverage.config import load_config
from relight.engine.coverage.finding_files import find_files
from relight.engine.coverage.models import Guarded, Kind, NotUnderstood, Reader, Site

CORPUS = Path(__file__).parent / "coverage_corpus"
LABEL = re.compile(r"(?:#|//|\*)\s*expect:\s*(.+?)\s*(?:\*/|-->)?\s*$")
GUARDED = {"guarded": Guarded.YES, "unguarded": Guarded.NO, "unknown": Guarded.UNKNOWN}


@dataclass(frozen=True, order=True)
class Place:
    """One labelled or found place; two of a kind on one line are two labels."""

    path: str
    line: int
    kind: Kind
    guarded: Guarded
    warned: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.kind} guarded={self.guarded}{' warned' if self.warned else ''}"


@dataclass(frozen=True)
class Marks:
    """How a reader did. A place counts as right only with its kind, its line and its judgement."""

    programs: int
    labels: int
    found: int
    missed: list[Place]
    """labelled and not found, or judged otherwise"""
    wrong: list[Place]
    """found and not labelled, or judged otherwise"""
    overlooked: list[Place]
    """labelled, and nothing of that kind was found there"""
    invented: list[Place]
    """found where no label says anything of that kind"""
    not_understood: list[NotUnderstood]

    @property
    def recall(self) -> float:
        return 100 * (self.labels - len(self.missed)) / self.labels

    @property
    def precision(self) -> float:
        return 100 * (self.found - len(self.wrong)) / self.found

    def __str__(self) -> str:
        lines = [
            f"{self.programs} programs, {self.labels} labels, {self.found} places found:"
            f" recall {self.recall:.1f} %, precision {self.precision:.1f} %"
        ]
        lines += [f"  missed {place}" for place in self.missed]
        lines += [f"  wrong  {place}" for place in self.wrong]
        return "\n".join(lines)


def programs(language: str) -> list[Path]:
    """Each file or folder of the corpus is one program."""
    found = (CORPUS / language).iterdir()
    return sorted(path for path in found if not path.name.startswith((".", "__")) and path.suffix != ".toml")


def labels_of(program: Path) -> Iterator[Place]:
    files = [program] if program.is_file() else sorted(path for path in program.rglob("*") if path.is_file())
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            if (found := LABEL.search(line)) is None:
                continue
            for label in found[1].split(","):
                kind, guarded, *rest = label.split()
                path = file.relative_to(CORPUS).as_posix()
                yield Place(path, number, Kind(kind), GUARDED[guarded], rest == ["warned"])


def read_program(program: Path, reader: Reader) -> list[Site | NotUnderstood]:
    config = load_config([program])
    files, unread = find_files([program], config)
    return [*unread, *reader.read([file for file in files if file.language in reader.languages], config)]


def marked(language: str, reader: Reader) -> Marks:
    """All programs of a language, read one by one."""
    labels: list[Place] = []
    found: list[Place] = []
    not_understood: list[NotUnderstood] = []
    for program in programs(language):
        labels += labels_of(program)
        for site in read_program(program, reader):
            if isinstance(site, NotUnderstood):
                not_understood.append(site)
                continue
            path = Path(site.path).resolve().relative_to(CORPUS.resolve()).as_posix()
            found.append(Place(path, site.line, site.kind, site.guarded, bool(site.warnings)))
    missed, wrong = _beyond(labels, found), _beyond(found, labels)
    return Marks(
        programs=len(programs(language)),
        labels=len(labels),
        found=len(found),
        missed=missed,
        wrong=wrong,
        overlooked=_beyond(missed, wrong, judged=False),
        invented=_beyond(wrong, missed, judged=False),
        not_understood=not_understood,
    )


def _beyond(some: list[Place], others: list[Place], *, judged: bool = True) -> list[Place]:
    """Those of `some` that have no fellow among the others, each of which is taken once."""

    def what(place: Place) -> tuple[object, ...]:
        whole = (place.path, place.line, place.kind, place.guarded, place.warned)
        return whole if judged else whole[:3]

    left = [what(place) for place in others]
    beyond = []
    for place in sorted(some):
        if what(place) in left:
            left.remove(what(place))
        else:
            beyond.append(place)
    return beyond
