"""The files of a program, what each exports, and what the configuration says of a name in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from relight.engine.coverage.javascript.resolution import Resolution
from relight.engine.coverage.javascript.scopes import Binding, Scopes, names_in
from relight.engine.coverage.javascript.tree import Node, Tree, unquoted
from relight.engine.coverage.models import SourceFile

SPECIFIER = re.compile(r"""(?:from|import|require)\s*\(?\s*["'`]([^"'`\n]+)["'`]""")
ENTRY = re.compile(r"^(?P<specifier>.*?)[:#](?P<name>[\w$]+)$")
BARE = re.compile(r"^[\w$]+$")


@dataclass(frozen=True, slots=True)
class Export:
    """What a name is exported as: a declaration, an expression, or a name of another module (`*`: all of it)."""

    binding: Binding | None = None
    expression: Node | None = None
    again: tuple[str, str] | None = None


@dataclass(eq=False, slots=True)
class File:
    source: SourceFile
    tree: Tree
    scopes: Scopes
    exports: dict[str, Export] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    """specifiers of `export * from`"""

    @classmethod
    def of(cls, source: SourceFile, text: str) -> File:
        tree = Tree(source.path, text)
        file = cls(source, tree, Scopes(tree))
        for statement in tree.root.children:
            if statement.kind == "export_statement":
                file._export(statement)
        return file

    def _export(self, statement: Node) -> None:
        source = statement.field("source")
        specifier = None if source is None else unquoted(source)
        declaration = statement.field("declaration") or statement.field("value")
        clause = statement.first("export_clause")
        namespace = statement.first("namespace_export")
        if clause is not None:
            self._export_clause(clause, specifier)
        elif namespace is not None and specifier is not None:
            self.exports[namespace.children[0].text] = Export(again=(specifier, "*"))
        elif specifier is not None:
            self.stars.append(specifier)
        elif statement.tokens & {"default", "="}:
            expression = declaration or (statement.children[-1] if statement.children else None)
            if expression is not None:
                self.exports["default" if "default" in statement.tokens else "="] = Export(expression=expression)
        elif declaration is not None:
            self._export_declaration(declaration)

    def _export_clause(self, clause: Node, specifier: str | None) -> None:
        for part in clause.children:
            name = part.field("name")
            alias = part.field("alias") or name
            if name is None or alias is None:
                continue
            exported, inner = (unquoted(node) or node.text for node in (alias, name))
            if specifier is not None:
                self.exports[exported] = Export(again=(specifier, inner))
            elif (binding := self.scopes.type(inner, self.tree.root)) is not None:
                self.exports[exported] = Export(binding=binding)

    def _export_declaration(self, declaration: Node) -> None:
        if declaration.kind in ("lexical_declaration", "variable_declaration"):
            patterns = [child.field("name") for child in declaration.children if child.kind == "variable_declarator"]
            names = [found.text for pattern in patterns if pattern is not None for found in names_in(pattern)]
        else:
            named = declaration.field("name") or declaration.first("identifier", "function_signature")
            if named is not None and named.kind == "function_signature":
                named = named.field("name")
            names = [] if named is None else [named.text]
        for name in names:
            if (binding := self.scopes.type(name, self.tree.root)) is not None:
                self.exports[name] = Export(binding=binding)


class Named:
    """Names of the configuration: `specifier:name` where a file's or a package's is meant, a bare name where any."""

    def __init__(self, entries: Iterable[str], root: Path) -> None:
        self._bare = {entry for entry in entries if BARE.match(entry)}
        self._of_specifier: dict[tuple[str, str], str] = {}
        self._of_file: dict[tuple[Path, str], str] = {}
        self._root = root
        for entry in entries:
            if (found := ENTRY.match(entry)) is not None:
                self._of_specifier[found["specifier"], found["name"]] = entry

    def __bool__(self) -> bool:
        return bool(self._bare or self._of_specifier)

    def find_files(self, resolution: Resolution) -> None:
        for (specifier, name), entry in self._of_specifier.items():
            path = resolution.find(specifier, self._root / "any.ts")
            if path is not None:
                self._of_file[path, name] = entry

    def bare(self, name: str) -> str | None:
        return name if name in self._bare else None

    def exported(self, specifier: str, file: File | None, name: str) -> str | None:
        """The entry that means this name of this module."""
        found = None if file is None else self._of_file.get((file.source.file, name))
        return found or self._of_specifier.get((specifier, name))

    def in_file(self, file: File) -> Iterator[tuple[str, str]]:
        """Names that this file exports, each with the entry that means it."""
        return ((name, entry) for (path, name), entry in self._of_file.items() if path == file.source.file)

    def words(self) -> Iterator[str]:
        """What a file has in it that has to do with any of these."""
        yield from self._bare
        yield from (name for _, name in self._of_specifier if name != "default")


class Program:
    """All files that have to do with clients, by their absolute path."""

    def __init__(self, files: Iterable[File], resolution: Resolution, guarding: Named, clients: Named) -> None:
        self.files = {file.source.file: file for file in files}
        self.by_tree = {file.tree: file for file in self.files.values()}
        self.guarding, self.clients = guarding, clients
        self.guarded: dict[Node, str] = {}
        """declarations that the configuration names as guarding"""
        self._resolution = resolution
        for file in self.files.values():
            for name, entry in guarding.in_file(file):
                if (export := file.exports.get(name)) is not None:
                    self._name_as_guarded(export, entry)

    def _name_as_guarded(self, export: Export, entry: str) -> None:
        if (binding := export.binding) is not None:
            binding.wrapper = entry
            declared = binding.declared
            self.guarded[declared.parent if declared.kind == "identifier" and declared.parent else declared] = entry
        elif export.expression is not None:
            self.guarded[export.expression] = entry

    def module(self, specifier: str, importer: File) -> File | None:
        path = self._resolution.find(specifier, importer.source.file)
        return None if path is None else self.files.get(path)


def specifiers(text: str) -> set[str]:
    """Of all modules that a source may import; some may stand in a comment."""
    return set(SPECIFIER.findall(text))
