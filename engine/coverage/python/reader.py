"""Reads Python files: parses all of them, then follows clients through those that may have to do with one."""

import ast
import json
import re
import sys
import warnings
from collections.abc import Iterable, Iterator

from relight.engine.coverage.config import CoverageConfig
from relight.engine.coverage.finding_files import read_source
from relight.engine.coverage.models import Language, NotUnderstood, Site, SourceFile
from relight.engine.coverage.python.judging import sites_of
from relight.engine.coverage.python.modules import Module, Modules, package_folders, spread_concern
from relight.engine.coverage.python.program import Program

CONCERNS = re.compile(
    rb"anthropic|claude|bedrock|litellm|init_chat_model|pydantic_ai|dspy|crewai|tool_runner"
    rb"|messages\s*\.\s*(create|stream|parse|count_tokens|batches|with_raw_response|with_streaming_response)",
    re.IGNORECASE,
)
"""What stands in every file where a client is made or called; all others are looked into as far as these lead there."""
MENTIONS = re.compile(rb"anthropic|claude", re.IGNORECASE)
RECURSION = 10_000


class PythonReader:
    """Nothing is imported and nothing is run."""

    languages = frozenset({Language.PYTHON})

    def read(self, files: Iterable[SourceFile], config: CoverageConfig) -> Iterator[Site | NotUnderstood]:
        parsed: list[tuple[SourceFile, ast.Module, bytes]] = []
        for source in files:
            body = read_source(source)
            tree = body if isinstance(body, NotUnderstood) else parse(source, body)
            if isinstance(tree, NotUnderstood):
                yield tree
            elif isinstance(body, bytes):
                parsed.append((source, tree, body))
        modules = Modules()
        packages = package_folders(source for source, _, _ in parsed)
        concerned: set[Module] = set()
        for source, tree, body in parsed:
            module = modules.add(source, tree, packages)
            module.defines = body.count(b"def ")
            module.mentions_anthropic = MENTIONS.search(body) is not None
            if CONCERNS.search(body) is not None or _configured(module, config):
                concerned.add(module)
        spread_concern(modules, concerned)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, RECURSION))
        try:
            program = Program(modules, config)
            program.read()
        finally:
            sys.setrecursionlimit(limit)
        for module, line in program.too_deep.items():
            yield NotUnderstood(module.path, line, "it is nested too deeply to be followed")
        for module, line in program.not_followed.items():
            yield NotUnderstood(module.path, line, "so many functions are handed around that not all were followed")
        yield from sites_of(program)


def _configured(module: Module, config: CoverageConfig) -> bool:
    """Whether configuration names something in it."""
    return any(name.startswith(f"{module.name}.") for name in config.guarding_names | config.client_names)


def parse(source: SourceFile, body: bytes) -> ast.Module | NotUnderstood:
    """The file's syntax tree, with type comments where they can be read."""
    if source.file.suffix == ".ipynb":
        cells = cells_of(body)
        if cells is None:
            return NotUnderstood(source.path, None, "it is no notebook: its JSON has no cells")
        body = cells.encode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in strings: not ours to tell
        try:
            return ast.parse(body, type_comments=True)
        except (SyntaxError, ValueError):
            pass
        try:
            return ast.parse(body)
        except SyntaxError as error:
            version = ".".join(map(str, sys.version_info[:2]))
            return NotUnderstood(source.path, error.lineno, f"Python {version} cannot parse it: {error.msg}")
        except (ValueError, RecursionError, MemoryError) as error:
            return NotUnderstood(source.path, None, f"it cannot be parsed: {error}")


def cells_of(body: bytes) -> str | None:
    """The code of a notebook, one cell after the other; lines that are IPython's own are left out."""
    try:
        cells = json.loads(body)["cells"]
        codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError):
        return None
    plain = [
        "\n".join("pass" if line.lstrip().startswith(("%", "!", "?")) else line for line in code.splitlines())
        for code in codes
        if not code.lstrip().startswith("%%")
    ]
    return "\n".join(plain)
