"""`relight coverage` of TypeScript and JavaScript on the labelled corpus: what it finds, what it misses, and why."""

import json
import random
from pathlib import Path

import pytest
from coverage_labels import CORPUS, Marks, labels_of, marked, programs

from relight.engine.coverage.config import CoverageConfig, load_config
from relight.engine.coverage.finding_files import find_files
from relight.engine.coverage.models import Guarded, Kind, Language, NotUnderstood, Site
from relight.engine.coverage.typescript import TypeScriptReader

TYPESCRIPT = CORPUS / "typescript"
SDK = "import Anthropic from '@anthropic-ai/sdk';\n"


@pytest.fixture(scope="module")
def marks() -> Marks:
    return marked("typescript", TypeScriptReader())


def read(
    path: Path, config: CoverageConfig | None = None, *, shuffled: int | None = None
) -> tuple[list[Site], list[NotUnderstood]]:
    told = config or load_config([path])
    files, _ = find_files([path], told)
    if shuffled is not None:
        random.Random(shuffled).shuffle(files)
    found = list(TypeScriptReader().read(files, told))
    return [each for each in found if isinstance(each, Site)], [each for each in found if not isinstance(each, Site)]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def call(sites: list[Site]) -> Site:
    [found] = [site for site in sites if site.kind is Kind.CALL]
    return found


def test_every_labelled_place_is_found_and_judged_as_labelled(marks: Marks) -> None:
    print(marks)
    assert marks.programs >= 50
    assert marks.overlooked == []
    assert marks.recall == 100, str(marks)


def test_what_is_not_labelled_is_not_claimed(marks: Marks) -> None:
    assert marks.precision >= 95, str(marks)


def test_the_corpus_has_labels_of_every_kind_and_programs_without_any() -> None:
    labels = [label for program in programs("typescript") for label in labels_of(program)]
    expected = {(kind, guarded) for kind in Kind for guarded in Guarded} - {(Kind.CLIENT, Guarded.UNKNOWN)}
    assert {(label.kind, label.guarded) for label in labels} == expected
    silent = [program.name for program in programs("typescript") if not list(labels_of(program))]
    assert len(silent) >= 5, "programs that call nothing of Anthropic's, and look as if they did"


def test_a_file_with_a_syntax_error_is_named_with_its_line(marks: Marks) -> None:
    assert [(each.path.rpartition("/")[2], each.line) for each in marks.not_understood] == [("broken.ts", 3)]


def test_a_broken_file_does_not_hide_what_the_others_have(tmp_path: Path) -> None:
    broken = "import { client } from './llm';\nclient.messages.create({ ;\n"
    fine = SDK + "export const client = new Anthropic();\nclient.messages.create({});\n"
    sites, unread = read(write(tmp_path, {"broken.ts": broken, "llm.ts": fine, "latin.js": "// anthropic"}))
    assert {site.line for site in sites if site.path.endswith("llm.ts")} == {2, 3}
    assert [each.path.rpartition("/")[2] for each in unread] == ["broken.ts"]


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.ts").write_bytes(b"// anthropic \xe9\n")
    [unread] = read(tmp_path)[1]
    assert unread.why == "it is not UTF-8 at byte 13"


def test_what_is_most_urgent_says_why() -> None:
    sites, _ = read(TYPESCRIPT / "urgent.ts")
    shown = {site.line: [str(reason.circumstance) for reason in site.reasons] for site in sites if site.kind == "call"}
    assert shown == {
        9: ["handler"],
        13: ["loop", "handler"],
        16: ["loop", "job"],
        18: ["job"],
        24: ["loop", "agent"],
        29: ["handler"],
        31: [],
    }
    [helped] = [site for site in sites if site.line == 9 and site.kind is Kind.CALL]
    assert helped.reasons[0].note.startswith("in a request handler (line 10) by helped, called at ")
    assert {site.within for site in sites} >= {"helped", "ResearchAgent.run", "handler"}


def test_a_handler_is_seen_from_another_file() -> None:
    sites, _ = read(TYPESCRIPT / "nest")
    [title] = [site for site in sites if site.within == "ChatService.title"]
    assert [reason.circumstance for reason in title.reasons] == ["handler"]
    assert "chat.controller.ts:10" in title.reasons[0].note


def test_the_evidence_leads_from_the_place_to_what_decided() -> None:
    sites, _ = read(TYPESCRIPT / "reexports")
    [found] = [site for site in sites if site.line == 5 and site.kind is Kind.CALL and "main" in site.path]
    assert [(step.path.rpartition("/")[2], step.line) for step in found.evidence] == [("main.ts", 5), ("vendor.ts", 3)]
    assert found.language is Language.TYPESCRIPT


@pytest.mark.parametrize("guarded_by", ["guarded", "./llm:guarded", "./llm#guarded", "./llm.ts:guarded"])
def test_a_wrapper_may_be_named_in_several_ways(tmp_path: Path, guarded_by: str) -> None:
    llm = SDK + "export const guarded = (c: Anthropic) => c;\nexport const raw = new Anthropic();\n"
    main = "import { guarded as g, raw } from './llm';\ng(raw).messages.create({});\n"
    root = write(tmp_path, {"llm.ts": llm, "main.ts": main})
    config = CoverageConfig(root=root, guarded_by=(guarded_by,))
    found = call(read(root, config)[0])
    if guarded_by == "guarded":
        assert found.guarded is Guarded.NO, "a bare name is the name where it is used"
    else:
        assert found.guarded is Guarded.YES
        assert guarded_by in found.why


def test_without_a_configured_wrapper_nothing_counts_as_guarded() -> None:
    sites, _ = read(TYPESCRIPT / "agent_loop.ts", CoverageConfig(root=TYPESCRIPT))
    assert {site.guarded for site in sites} == {Guarded.NO}
    assert call(sites).why == "its client came through guarded, which guarded_by does not name"


def test_every_judgement_is_one_sentence_without_a_full_stop() -> None:
    sites = [site for program in programs("typescript") for site in read(program)[0]]
    assert all(site.why and not site.why.endswith(".") and "\n" not in site.why for site in sites)
    assert all(site.evidence[0].line == site.line for site in sites)


@pytest.mark.parametrize("program", ["nest", "reexports", "workspace"])
def test_the_order_of_files_changes_nothing(program: str) -> None:
    def shown(seed: int) -> list[str]:
        return sorted(map(repr, read(TYPESCRIPT / program, shuffled=seed)[0]))

    assert shown(1) == shown(2) == shown(3)


def test_circles_come_to_an_end(tmp_path: Path) -> None:
    files = {
        "a.ts": SDK + "export * from './b';\nexport { x } from './b';\nexport const client = new Anthropic();\n",
        "b.ts": "import { client } from './a';\nexport * from './a';\nexport { x } from './a';\n"
        + "client.messages.create({});\n",
        "c.ts": SDK
        + "type A = A | B; type B = { a: A } & B; interface C extends C { c: Anthropic }\n"
        + "const o: any = { ...o, o }; o.o.o.client = o; class D extends D { d = this.d }\n"
        + "function f(x: C) { return f(g(x)); } function g(x: C) { return f(x) || x; }\n"
        + "f(g(o)).c.messages.create({ model: 'claude' });\n",
    }
    sites, unread = read(write(tmp_path, files))
    assert call([site for site in sites if site.path.endswith("b.ts")]).guarded is Guarded.NO
    assert unread == []


def test_a_chain_of_a_thousand_calls_is_read(tmp_path: Path) -> None:
    chained = SDK + "z" + ".a()" * 1_000 + ";\nnew Anthropic().messages.create({});\n"
    sites, unread = read(write(tmp_path, {"chain.ts": chained}))
    assert call(sites).line == 3
    assert unread == []


def test_a_package_json_or_tsconfig_that_is_no_json_is_passed_over(tmp_path: Path) -> None:
    files = {
        "tsconfig.json": "{ paths: ",
        "package.json": json.dumps([1]),
        "a.ts": SDK + "new Anthropic().beta.x.y();\n",
    }
    assert call(read(write(tmp_path, files))[0]).what == "beta.x.y"
