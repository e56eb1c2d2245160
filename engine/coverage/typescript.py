"""Reads TypeScript and JavaScript: follows every client from where it is made to where it is called."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from relight.engine.coverage.config import CoverageConfig
from relight.engine.coverage.finding_files import read_source
from relight.engine.coverage.javascript import wording
from relight.engine.coverage.javascript.circumstances import Circumstances
from relight.engine.coverage.javascript.evaluation import Evaluation
from relight.engine.coverage.javascript.flowing import Flow
from relight.engine.coverage.javascript.modules import File, Named, Program, specifiers
from relight.engine.coverage.javascript.resolution import Resolution
from relight.engine.coverage.javascript.sites import Place, Places
from relight.engine.coverage.javascript.tree import Node
from relight.engine.coverage.models import Guarded, Kind, Language, NotUnderstood, Site, SourceFile

WORDS = ("anthropic", "claude")
"""A file that has neither in it, and imports none that has, is not parsed: nothing can flow there."""


FRAMES = 5_000


class TypeScriptReader:
    """Reads all of the files before it judges any: a client may be made in one and called in another."""

    languages = frozenset({Language.TYPESCRIPT, Language.JAVASCRIPT})

    def read(self, files: Iterable[SourceFile], config: CoverageConfig) -> Iterator[Site | NotUnderstood]:
        guarding, clients = Named(config.guarded_by, config.root), Named(config.clients, config.root)
        words = {*WORDS, *(word.lower() for named in (guarding, clients) for word in named.words())}
        texts: dict[Path, str] = {}
        sources: dict[Path, SourceFile] = {}
        parsed: dict[Path, File] = {}
        for source in files:
            if source.language not in self.languages:
                continue
            read = read_source(source)
            if isinstance(read, NotUnderstood):
                yield read
                continue
            try:
                text = read.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                yield NotUnderstood(source.path, None, f"it is not UTF-8 at byte {error.start}")
                continue
            texts[source.file], sources[source.file] = text, source
            lowered = text.lower()
            if any(word in lowered for word in words):
                parsed[source.file] = File.of(source, text)
        resolution = Resolution(frozenset(texts), frozenset(source.module_root for source in sources.values()))
        for path in _connected(texts, set(parsed), resolution):
            parsed[path] = File.of(sources[path], texts[path])
        for file in parsed.values():
            if file.tree.fault_line is not None:
                yield NotUnderstood(file.source.path, file.tree.fault_line, "its syntax is not understood here")
        guarding.find_files(resolution)
        clients.find_files(resolution)
        program = Program([parsed[path] for path in sorted(parsed)], resolution, guarding, clients)
        with _recursion():
            found = list(_sites(program))
        yield from found


@contextmanager
def _recursion() -> Iterator[None]:
    """Long chains of calls nest as deep as they are long."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(max(usual, FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(usual)


def _connected(texts: dict[Path, str], begun: set[Path], resolution: Resolution) -> set[Path]:
    """The files that import any of these, or are imported by them, over any number of steps."""
    beside: dict[Path, set[Path]] = {path: set() for path in texts}
    for path, text in texts.items():
        for specifier in specifiers(text):
            if (found := resolution.find(specifier, path)) is not None:
                beside[path].add(found)
                beside[found].add(path)
    reached, waiting = set(begun), list(begun)
    while waiting:
        new = beside[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached - begun


def _sites(program: Program) -> Iterator[Site | NotUnderstood]:
    evaluation = Evaluation(program)
    if not Flow(evaluation).run():
        yield NotUnderstood(str(next(iter(program.files.values())).source.path), None, "what calls what is too deep")
    places = Places(evaluation)
    found = places.collect()
    circumstances = Circumstances(evaluation)
    judged = {id(place): wording.judged_call(place) for place in found if place.kind is Kind.CALL}
    raw: dict[Node, Node] = {}
    for place in found:
        if place.kind is Kind.CALL and judged[id(place)][0] is Guarded.NO:
            for client in place.clients:
                if client.site is not None and client.guarded is Guarded.NO:
                    raw.setdefault(client.site, place.node)
    for place in found:
        if place.kind is Kind.CALL:
            judgement = judged[id(place)]
        else:
            judgement = wording.judged_client(place, places.wrapped.get(place.node), raw.get(place.node))
        yield _site(program, place, judgement, circumstances)


def _site(program: Program, place: Place, judgement: wording.Judgement, circumstances: Circumstances) -> Site:
    node, source = place.node, program.by_tree[place.node.tree].source
    guarded, why, evidence = judgement
    return Site(
        path=source.path,
        line=node.line,
        column=node.column,
        end_line=node.end_line,
        language=source.language,
        kind=place.kind,
        what=place.what,
        guarded=guarded,
        why=why,
        evidence=evidence,
        within=wording.within(node),
        in_test=source.in_test,
        reasons=circumstances.of(node),
    )
