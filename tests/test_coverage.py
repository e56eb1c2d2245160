"""`relight coverage` on the labelled corpus: what it finds, what it misses, and why it says so."""

from pathlib import Path

import pytest
from coverage_labels import CORPUS, Marks, labels_of, marked, programs, read_program

from relight.engine.coverage.config import CoverageConfig, load_config
from relight.engine.coverage.finding_files import find_files, looks_like_test, matches
from relight.engine.coverage.models import Circumstance, Guarded, Kind, Language, NotUnderstood, Site
from relight.engine.coverage.python.reader import PythonReader
from relight.engine.errors import CoverageError


@pytest.fixture(scope="module")
def marks() -> Marks:
    return marked("python", PythonReader())


def sites(folder: Path, config: CoverageConfig | None = None) -> list[Site]:
    told = config or load_config([folder])
    files, _ = find_files([folder], told)
    return [site for site in PythonReader().read(files, told) if isinstance(site, Site)]


def test_every_labelled_place_is_found_and_judged_as_labelled(marks: Marks) -> None:
    print(marks)
    assert marks.programs >= 40
    assert marks.overlooked == []
    assert marks.recall == 100, str(marks)


def test_what_is_not_labelled_is_not_claimed(marks: Marks) -> None:
    assert marks.precision >= 95, str(marks)
    assert marks.not_understood == []


def test_the_corpus_has_labels_of_every_kind() -> None:
    labels = [label for program in programs("python") for label in labels_of(program)]
    assert {(label.kind, label.guarded) for label in labels} == {
        (kind, guarded) for kind in Kind for guarded in Guarded
    }
    silent = [program.name for program in programs("python") if not list(labels_of(program))]
    assert len(silent) >= 5, "programs that call nothing of Anthropic's, and look as if they did"


def test_what_is_most_urgent_says_why() -> None:
    found = {site.line: site for site in sites(CORPUS / "python" / "urgent.py") if site.kind is Kind.CALL}
    shown = {line: [str(reason.circumstance) for reason in site.reasons] for line, site in found.items()}
    assert shown == {
        15: ["handler"],
        21: ["job", "loop"],
        26: ["agent"],
        28: ["loop", "agent"],
        33: ["handler"],
        37: [],
    }
    assert found[33].reasons[0].note.startswith("called from helped (")
    assert found[28].within == "ResearchAgent.run"


def test_the_evidence_leads_from_the_place_to_what_decided() -> None:
    [call] = [site for site in sites(CORPUS / "python" / "reexports") if site.kind is Kind.CALL and site.line == 6]
    assert call.guarded is Guarded.YES
    assert [(step.path.rpartition("/")[2], step.line) for step in call.evidence] == [
        ("main.py", 6),
        ("clients.py", 4),
        ("clients.py", 5),
    ]
    assert "passes through relight.guarded" in call.why


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_what_cannot_be_parsed_or_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, broken="def f(:\n", fine="import anthropic\nanthropic.Anthropic()\n")
    (tmp_path / "nul.py").write_bytes(b"a = 1\0")
    (tmp_path / "huge.py").write_bytes(b"#" * 5_000_000)
    (tmp_path / "cells.ipynb").write_text("{}")
    (tmp_path / "latin.py").write_bytes(b"s = '\xe9'\n")
    files, _ = find_files([tmp_path], CoverageConfig())
    found = list(PythonReader().read(files, CoverageConfig()))
    named = {Path(one.path).name: one for one in found if isinstance(one, NotUnderstood)}
    assert named.keys() == {"broken.py", "nul.py", "huge.py", "cells.ipynb", "latin.py"}
    assert named["broken.py"].line == 1
    assert [site.line for site in found if isinstance(site, Site)] == [2]


def test_a_notebooks_cells_are_read_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text(
        '{"cells": [{"cell_type": "code", "source": ["%pip install anthropic\\n", "from anthropic import Anthropic"]},'
        ' {"cell_type": "markdown", "source": "Anthropic()"},'
        ' {"cell_type": "code", "source": "Anthropic().messages.create(model=1, max_tokens=1, messages=[])"}]}'
    )
    assert [(site.kind, site.line) for site in sites(tmp_path)] == [(Kind.CALL, 3), (Kind.CLIENT, 3)]


def test_nothing_is_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    write(tmp_path, a=f"import anthropic\nopen({str(ran)!r}, 'w')\nanthropic.Anthropic()\nraise SystemExit\n")
    assert len(sites(tmp_path)) == 1
    assert not ran.exists()


def test_folders_of_tools_and_what_git_ignores_are_not_read(tmp_path: Path) -> None:
    text = "import anthropic\nanthropic.Anthropic()\n"
    for folder in (".venv/lib", "node_modules/x", "build", "src", "kept"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.py").write_text(text)
    config = CoverageConfig(root=tmp_path, exclude=("kept/**",))
    found, _ = find_files([tmp_path], config)
    assert [file.path.removeprefix(f"{tmp_path.as_posix()}/") for file in found] == ["src/a.py"]
    files, _ = find_files([tmp_path / "kept" / "a.py"], config)
    assert [file.language for file in files] == [Language.PYTHON], "what is named itself is read"


@pytest.mark.parametrize(
    ("path", "is_test"),
    [
        ("app/tests/x.py", True),
        ("app/test_x.py", True),
        ("app/x_test.py", True),
        ("app/conftest.py", True),
        ("web/x.spec.tsx", True),
        ("web/__tests__/x.ts", True),
        ("app/contest.py", False),
        ("app/latest.py", False),
        ("app/testimony/x.py", False),
        ("app/attest.ts", False),
    ],
)
def test_tests_are_told_by_their_names(path: str, is_test: bool) -> None:
    assert looks_like_test(path) is is_test


@pytest.mark.parametrize(
    ("path", "glob", "takes"),
    [
        ("scripts/a/b.py", "scripts/**", True),
        ("scripts/a/b.py", "scripts", True),
        ("x/gen/a.py", "**/gen/*.py", True),
        ("gen/a.py", "**/gen/*.py", True),
        ("src/a/b.py", "src/*.py", False),
        ("a/b_pb2.py", "*_pb2.py", True),
        ("a/b.py", "*_pb2.py", False),
    ],
)
def test_globs_are_those_of_gitignore(path: str, glob: str, takes: bool) -> None:
    assert matches(path, glob) is takes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("guarded = ['x']", "guarded is no field; remove it, or choose one of exclude, tests, guarded_by, clients"),
        (
            "[priorities]\nloops = 3",
            "priorities.loops is no field; remove it, or choose one of handler, job, loop, agent",
        ),
        ("[priorities]\nloop = -3", "priorities.loop is invalid: Input should be greater than or equal to 0"),
        ("fail_under = 101", "fail_under is invalid: Input should be less than or equal to 100"),
        ("root = '/'", "root is no field"),
        ("exclude = 3", "exclude is invalid"),
        ("a b", "is no TOML"),
        ("[tool.relight]\ncoverage = 3", "tool.relight.coverage is no table"),
    ],
)
def test_a_wrong_configuration_is_refused_with_what_there_is(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "coverage.toml"
    file.write_text(text)
    with pytest.raises(CoverageError) as refused:
        load_config([tmp_path], file)
    assert message in str(refused.value)
    assert str(file) in str(refused.value)


def test_the_nearest_pyproject_that_speaks_of_it_counts(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.relight.coverage]\nfail_under = 80\n")
    (tmp_path / "app").mkdir()
    assert load_config([tmp_path / "app"]).fail_under == 80
    (tmp_path / "app" / "pyproject.toml").write_text("[project]\nname = 'app'\n")
    assert load_config([tmp_path / "app"]).fail_under is None, "another project's does not"
    with pytest.raises(CoverageError, match="cannot be read"):
        load_config([tmp_path], tmp_path / "nowhere.toml")


def test_many_files_that_concern_nobody_are_not_looked_into(tmp_path: Path) -> None:
    body = "\n".join(f"def f{n}(x):\n    return [y for y in x if y > {n}]" for n in range(20))
    for n in range(200):
        (tmp_path / f"m{n}.py").write_text(f"import m{(n + 1) % 200}\n{body}\n")
    write(tmp_path, llm="import anthropic\nimport m1\nc = anthropic.Anthropic()\nm1.f1(c)\n")
    assert [(site.what, site.guarded) for site in sites(tmp_path)] == [("Anthropic", Guarded.NO)]


def test_what_refers_to_itself_comes_to_an_end(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="from __future__ import annotations\n"
        "from typing import Optional\n"
        "import anthropic\n"
        "import b\n"
        "Tree = Optional[dict[str, 'Tree']]\n"
        "def walk(tree: Tree, client: anthropic.Anthropic):\n"
        "    box = []\n"
        "    for node in tree:\n"
        "        box = [box, node, client]\n"
        "        walk([node], client)\n"
        "    return walk(box, client)\n"
        "class A(B): ...\n"
        "class B(A): ...\n"
        "x = lambda: x()\n"
        "b.f(x)\n",
        b="import a\ndef f(g): return f(lambda: g(a.walk))\n",
    )
    assert sites(tmp_path) == []


def test_programs_of_the_corpus_do_not_disturb_each_other() -> None:
    files, _ = find_files([CORPUS / "python"], CoverageConfig())
    together = [site for site in PythonReader().read(files, CoverageConfig()) if isinstance(site, Site)]
    alone = [
        site
        for program in programs("python")
        for site in read_program(program, PythonReader())
        if isinstance(site, Site)
    ]

    def told(found: list[Site]) -> set[tuple[str, int, Kind, Guarded]]:
        # One has configuration of its own, and one is about attributes of anything in the program.
        own = ("/configured/", "/untyped_holder.py")
        return {(s.path, s.line, s.kind, s.guarded) for s in found if not any(name in s.path for name in own)}

    assert told(together) == told(alone)


def test_circumstances_are_ordered_as_their_weights() -> None:
    weights = CoverageConfig().priorities
    assert [getattr(weights, circumstance) for circumstance in Circumstance] == sorted(
        (getattr(weights, circumstance) for circumstance in Circumstance), reverse=True
    )
