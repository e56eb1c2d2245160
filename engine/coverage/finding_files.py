"""Finds the sources under the paths given, as git sees them where there is a repository."""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from fnmatch import translate
from functools import lru_cache
from pathlib import Path, PurePosixPath

from relight.engine.coverage.config import CoverageConfig
from relight.engine.coverage.models import Language, NotUnderstood, SourceFile
from relight.engine.errors import CoverageError

LANGUAGES = {
    ".py": Language.PYTHON,
    ".pyw": Language.PYTHON,
    ".ipynb": Language.PYTHON,
    **dict.fromkeys((".ts", ".tsx", ".mts", ".cts"), Language.TYPESCRIPT),
    **dict.fromkeys((".js", ".jsx", ".mjs", ".cjs"), Language.JAVASCRIPT),
}
NEVER = frozenset(
    {
        *(".git", ".hg", ".svn", ".venv", "venv", "node_modules", "bower_components", "site-packages", "__pycache__"),
        *(
            ".mypy_cache",
            ".ruff_cache",
            ".pytest_cache",
            ".tox",
            ".nox",
            ".next",
            ".nuxt",
            ".svelte-kit",
            ".turbo",
            "htmlcov",
            "lcov-report",
        ),
    }
)
"""Folders of tools, whatever git says of them."""
BUILT = frozenset({"build", "dist", "out", ".eggs"})
"""Folders that are what a build made, unless git keeps them."""
TEST_FOLDERS = frozenset({"test", "tests", "testing", "__tests__", "__mocks__", "e2e", "spec", "specs"})
TEST_FILE = re.compile(r"(test_.*|.*_tests?|conftest|tests?)\.(py|pyw|ipynb)$|(.*\.)?(test|spec|e2e)\.[cm]?[jt]sx?$")
GIT_S = 30
LARGEST_BYTES = 4_000_000


def find_files(paths: Sequence[Path], config: CoverageConfig) -> tuple[list[SourceFile], list[NotUnderstood]]:
    """Every source under the paths, once, in order; and what could not be looked into.

    A file named itself is read whatever git or `exclude` say of it. Raises `CoverageError` for a path that is not
    there.
    """
    found: dict[Path, SourceFile] = {}
    unread: list[NotUnderstood] = []
    for path in paths:
        if path.is_file():
            if (language := LANGUAGES.get(path.suffix)) is None:
                unread.append(NotUnderstood(shown(path), None, f"{path.suffix or 'no extension'} is no known source"))
                continue
            found.setdefault(path.absolute(), _source(path, path.absolute().parent, language, config))
        elif path.is_dir():
            listed = _listed_by_git(path)
            for file in sorted(_walked(path, unread) if listed is None else listed):
                language = LANGUAGES.get(file.suffix)
                if language is not None and not _left_out(file, path, config):
                    found.setdefault(file.absolute(), _source(file, path.absolute(), language, config))
        else:
            raise CoverageError(f"{path} is neither a file nor a folder; name sources that exist")
    return list(found.values()), unread


def shown(file: Path) -> str:
    """Relative to the working directory where it lies within, with `/` everywhere."""
    absolute, here = Path(os.path.abspath(file)), Path.cwd()
    return (absolute.relative_to(here) if absolute.is_relative_to(here) else absolute).as_posix()


def read_source(source: SourceFile) -> bytes | NotUnderstood:
    """The file's bytes, or why there are none."""
    try:
        if (size := source.file.stat().st_size) > LARGEST_BYTES:
            return NotUnderstood(source.path, None, f"it has {size} bytes, more than the {LARGEST_BYTES} that are read")
        return source.file.read_bytes()
    except OSError as error:
        return NotUnderstood(source.path, None, f"it cannot be read: {error.strerror}")


def looks_like_test(path: str) -> bool:
    """Whether a file is a test by its name, or by that of a folder; the path begins at what was named to be read."""
    parts = PurePosixPath(path)
    return any(part in TEST_FOLDERS for part in parts.parts[:-1]) or TEST_FILE.match(parts.name) is not None


def matches(path: str, glob: str) -> bool:
    """`**` crosses folders, and a glob that names a folder takes all that is in it."""
    return _pattern(glob).match(path) is not None


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    glob = glob.removeprefix("./").rstrip("/")
    anywhere = "" if "/" in glob else "(.*/)?"
    parts = [".*" if part == "**" else translate(part)[4:-3].replace(".*", "[^/]*") for part in glob.split("/")]
    pattern = "/".join(parts).replace(".*/", "(.*/)?")
    return re.compile(f"{anywhere}{pattern}(/.*)?$", re.DOTALL)


def _source(file: Path, root: Path, language: Language, config: CoverageConfig) -> SourceFile:
    inside, named = _inside(file, root), _inside(file, config.root, root)
    in_test = looks_like_test(f"{root.name}/{inside}") or any(matches(named, glob) for glob in config.tests)
    return SourceFile(shown(file), file.absolute(), root, language, in_test)


def _inside(file: Path, *roots: Path) -> str:
    """Relative to the first of the roots that it lies under, so that folders above do not make it a test."""
    for root in roots:
        if file.absolute().is_relative_to(root):
            return file.absolute().relative_to(root).as_posix()
    return file.name


def _left_out(file: Path, root: Path, config: CoverageConfig) -> bool:
    if any(part in NEVER for part in file.relative_to(root).parts):
        return True
    inside = _inside(file, config.root, root.absolute())
    return any(matches(inside, glob) for glob in config.exclude)


def _listed_by_git(folder: Path) -> list[Path] | None:
    """What git keeps, or would keep, under the folder; None where that cannot be asked."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, timeout=GIT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    files = [folder / os.fsdecode(name) for name in listed.split(b"\0") if name]
    present = [file for file in files if file.is_file()]
    # A folder that git ignores as a whole has nothing for git, but was named on purpose.
    return present or None


def _walked(folder: Path, unread: list[NotUnderstood]) -> Iterator[Path]:
    def refused(error: OSError) -> None:
        unread.append(NotUnderstood(shown(Path(error.filename)), None, f"it cannot be listed: {error.strerror}"))

    for here, folders, files in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if name not in NEVER and name not in BUILT]
        yield from (Path(here) / name for name in files)
