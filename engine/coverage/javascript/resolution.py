"""Which of the files a module specifier means, as TypeScript and bundlers look for it."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from os.path import normpath
from pathlib import Path

EXTENSIONS = (".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs")
WRITTEN_FOR = {".js": (".ts", ".tsx", ".jsx"), ".jsx": (".tsx",), ".mjs": (".mts",), ".cjs": (".cts",)}
"""An import names what the compiler will write."""
CONFIGURATIONS = ("tsconfig.json", "jsconfig.json", "tsconfig.base.json")
LARGEST_BYTES = 1_000_000

_COMMENT_OR_STRING = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/|,(?=\s*[}\]])', re.DOTALL)


class Resolution:
    """Among these files, each by its absolute path; folders above `roots` are not looked into."""

    def __init__(self, files: frozenset[Path], roots: frozenset[Path]) -> None:
        self._files = files
        self._roots = roots
        self._packages = {
            name: folder
            for folder in {parent for file in files for parent in self._within(file)}
            if isinstance(name := _json(folder / "package.json").get("name"), str)
        }

    def find(self, specifier: str, importer: Path) -> Path | None:
        """None where it is a package, or a file that is not among these."""
        if specifier.startswith("."):
            return self._file(importer.parent / specifier)
        if specifier.startswith("/"):
            return self._file(Path(specifier))
        for folder in self._within(importer):
            for candidate in _mapped(folder, specifier):
                if (found := self._file(candidate)) is not None:
                    return found
        return self._in_workspace(specifier)

    def _within(self, file: Path) -> Iterator[Path]:
        """Its folders, up to the root that it was found under."""
        for folder in file.parents:
            yield folder
            if folder in self._roots:
                return

    def _in_workspace(self, specifier: str) -> Path | None:
        for name, folder in self._packages.items():
            if specifier == name or specifier.startswith(name + "/"):
                inside = specifier[len(name) + 1 :]
                entry = [inside] if inside else [*_entries(folder), "index"]
                candidates = (folder / place / part for part in entry for place in ("", "src"))
                return next((found for path in candidates if (found := self._file(path)) is not None), None)
        return None

    def _file(self, path: Path) -> Path | None:
        path = Path(normpath(path))
        if path in self._files:
            return path
        for extension in WRITTEN_FOR.get(path.suffix, ()):
            if (written := path.with_suffix(extension)) in self._files:
                return written
        for base in (path, path / "index"):
            for extension in EXTENSIONS:
                if (found := base.with_name(base.name + extension)) in self._files:
                    return found
        return None


def _entries(folder: Path) -> Iterator[str]:
    """Where a package begins; what its build writes stands for what it was built from."""
    package = _json(folder / "package.json")
    for field in ("source", "main", "module", "types"):
        if isinstance(entry := package.get(field), str):
            yield entry
            yield re.sub(r"^(\./)?(dist|build|lib|out)/", "src/", entry.removesuffix(".d.ts"))


def _mapped(folder: Path, specifier: str) -> Iterator[Path]:
    """By `paths` and `baseUrl` of a tsconfig.json, and by `imports` of a package.json, in this folder."""
    for name in CONFIGURATIONS:
        base, paths = _compiler_paths(folder / name)
        for pattern, targets in paths.items():
            yield from (base / target for target in _matches(pattern, targets, specifier))
        if base != folder / name:
            yield base / specifier
    imports = _json(folder / "package.json").get("imports") if specifier.startswith("#") else None
    if isinstance(imports, dict):
        for pattern, target in imports.items():
            if isinstance(target, str):
                yield from (folder / found for found in _matches(pattern, [target], specifier))


def _matches(pattern: str, targets: object, specifier: str) -> Iterator[str]:
    before, star, after = pattern.partition("*")
    if not (
        specifier == pattern
        or (star and specifier.startswith(before) and specifier.endswith(after) and len(specifier) >= len(pattern) - 1)
    ):
        return
    rest = specifier[len(before) : len(specifier) - len(after)] if star else ""
    for target in targets if isinstance(targets, list) else ():
        if isinstance(target, str):
            yield target.replace("*", rest)


@lru_cache(maxsize=4_096)
def _compiler_paths(file: Path) -> tuple[Path, Mapping[str, object]]:
    """What `paths` are relative to, and they; the file itself where it gives no base."""
    options = _json(file).get("compilerOptions")
    options = options if isinstance(options, dict) else {}
    extended = _json(file).get("extends")
    base, paths = file, options.get("paths")
    if isinstance(extended, str) and extended.startswith(".") and not isinstance(paths, dict):
        above = Path(normpath(file.parent / extended))
        above = above if above.suffix == ".json" else above.with_name(above.name + ".json")
        if above != file and above.is_file():
            base, paths = _compiler_paths(above)
            base = above.parent if base == above else base
    if isinstance(url := options.get("baseUrl"), str):
        base = Path(normpath(file.parent / url))
    if isinstance(paths, dict) and paths:
        return (file.parent if base == file else base), paths
    return base, {}


@lru_cache(maxsize=8_192)
def _json(file: Path) -> Mapping[str, object]:
    """An object of JSON with comments; empty where there is none, or it is not understood."""
    try:
        if file.stat().st_size > LARGEST_BYTES:
            return {}
        text = file.read_text(encoding="utf-8-sig")
        document = json.loads(_COMMENT_OR_STRING.sub(lambda found: found[1] or "", text))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
