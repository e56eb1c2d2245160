"""The modules among the files: which names they can be imported by, and which file an import leads to."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
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
    defines: int = 0
    """How many functions, roughly."""
    concerned: bool = True
    """Whether a client may come by here; where not, only what is called with one is looked into."""

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


def origin(node: ast.ImportFrom, package: str) -> str:
    """The module that `from … import` names, made absolute."""
    if node.level == 0:
        return node.module or ""
    parts = package.split(".") if package else []
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def spread_concern(modules: Modules, first: set[Module]) -> None:
    """Whoever imports a concerned module, directly or not, is concerned: clients may be handed on."""
    importers: dict[Module, set[Module]] = {}
    for module in modules.all:
        for name in _imported_names(module):
            imported = modules.find(name, module)
            if imported is not None:
                importers.setdefault(imported, set()).add(module)
    concerned, waiting = set(first), list(first)
    while waiting:
        for importer in importers.get(waiting.pop(), ()):
            if importer not in concerned:
                concerned.add(importer)
                waiting.append(importer)
    for module in modules.all:
        module.concerned = module in concerned


def _imported_names(module: Module) -> Iterator[str]:
    for node in _statements(module.tree.body):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield alias.name
            case ast.ImportFrom(names=names):
                whole = origin(node, module.package)
                yield whole
                for alias in names:
                    yield f"{whole}.{alias.name}"
            case _:
                pass


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All of them, however deep."""
    waiting = list(body)
    while waiting:
        here = waiting.pop()
        yield here
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            for inner in getattr(here, name, ()):
                waiting.extend([inner] if isinstance(inner, ast.stmt) else inner.body)


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
