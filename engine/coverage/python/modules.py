"""The modules among the files: which names they can be imported by, and which file an import leads to."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from relight.engine.coverage.models import SourceFile
from relight.engine.coverage.python.values import Class, Frame, Function, Values

SOURCE_FOLDERS = frozenset({"src", "lib", "python"})


@dataclass(eq=False, slots=True)
class Module:
    """One file. `assigned_elsewhere` are globals that functions or other modules set."""

    source: SourceFile
    tree: ast.Module
    name: str
    package: str
    frame: Frame | None = None
    state: str = "new"
    assigned_elsewhere: dict[str, Values] = field(default_factory=dict)
    functions: list[Function] = field(default_factory=list)
    classes: dict[ast.ClassDef, Class] = field(default_factory=dict)
    mentions_anthropic: bool = False

    @property
    def path(self) -> str:
        return self.source.path


class Modules:
    """Every module by every name that it may be imported by."""

    def __init__(self) -> None:
        self.all: list[Module] = []
        self._by_name: dict[str, list[Module]] = {}

    def add(self, source: SourceFile, tree: ast.Module, packages: frozenset[Path]) -> Module:
        names = _names(source, packages)
        name = names[0]
        is_package = source.file.name == "__init__.py"
        module = Module(source, tree, name, name if is_package else name.rpartition(".")[0])
        self.all.append(module)
        for each in names:
            self._by_name.setdefault(each, []).append(module)
        return module

    def find(self, dotted: str, importer: Module) -> Module | None:
        """The file that this name leads to; of several the nearest to who imports it."""
        found = self._by_name.get(dotted)
        if not found:
            return None
        return found[0] if len(found) == 1 else max(found, key=lambda one: _shared(one.path, importer.path))

    def __contains__(self, dotted: str) -> bool:
        return dotted in self._by_name


def package_folders(files: Iterable[SourceFile]) -> frozenset[Path]:
    return frozenset(source.file.parent for source in files if source.file.name == "__init__.py")


def _names(source: SourceFile, packages: frozenset[Path]) -> list[str]:
    """The name by its packages first, then those by folders without `__init__.py` above them."""
    parts = [] if source.file.name == "__init__.py" else [source.file.stem]
    folder, names = source.file.parent, []
    while folder in packages:
        parts.insert(0, folder.name)
        folder = folder.parent
    names.append(".".join(parts))
    while folder != source.module_root and source.module_root in folder.parents:
        if folder.name not in SOURCE_FOLDERS or folder.parent != source.module_root:
            parts.insert(0, folder.name)
            names.append(".".join(parts))
        folder = folder.parent
    if source.module_root not in packages:
        # Given a package's own folder, the name of that folder is the package's.
        parts = [*([source.module_root.name]), *parts]
        names.append(".".join(parts))
    return [name for name in dict.fromkeys(names) if name] or [source.file.stem]


def _shared(one: str, other: str) -> int:
    count = 0
    for a, b in zip(PurePath(one).parts, PurePath(other).parts, strict=False):
        if a != b:
            break
        count += 1
    return count
