"""What `relight coverage` is told of a program: `[tool.relight.coverage]` in pyproject.toml, or a file of its own."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from relight.engine.errors import CoverageError

TABLE = ("tool", "relight", "coverage")


class Priorities(BaseModel):
    """How much each circumstance weighs; the sum is a site's priority, and the highest are listed first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    handler: Annotated[int, Field(ge=0)] = 8
    job: Annotated[int, Field(ge=0)] = 6
    loop: Annotated[int, Field(ge=0)] = 4
    agent: Annotated[int, Field(ge=0)] = 3


class CoverageConfig(BaseModel):
    """All of it; paths and globs are relative to `root`, the folder of the file that it was read from.

    A name is `package.module.name` or `package.module:name` in Python, and `specifier:name` in TypeScript and
    JavaScript, where the specifier is a package (`@acme/llm:client`) or a file (`./src/llm:client`; the extension may
    be left out) and the name may be `default`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Field(default_factory=Path.cwd, exclude=True)
    exclude: tuple[str, ...] = Field(default=(), description="globs of files that are not read")
    tests: tuple[str, ...] = Field(default=(), description="globs of files that are tests, beside the usual ones")
    guarded_by: tuple[str, ...] = Field(
        default=(), description="functions whose result is a guarded client, or variables that hold one"
    )
    clients: tuple[str, ...] = Field(
        default=(), description="functions whose result is an unguarded client, or variables that hold one"
    )
    count_tests: bool = Field(default=False, description="whether calls in tests count; they are listed anyway")
    fail_under: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="percentage of calls guarded below which the command fails"
    )
    priorities: Priorities = Priorities()

    @property
    def guarding_names(self) -> frozenset[str]:
        """For Python: dotted."""
        return frozenset(_dotted(name) for name in self.guarded_by)

    @property
    def client_names(self) -> frozenset[str]:
        return frozenset(_dotted(name) for name in self.clients)


def load_config(paths: Sequence[Path], file: Path | None = None) -> CoverageConfig:
    """From `file`, else from the pyproject.toml nearest above the paths, else what holds without any.

    Raises `CoverageError` that names the file and the field.
    """
    if file is not None:
        document = _read(file)
        table = _table(document, file) if TABLE[0] in document else document
        return _checked(table or {}, file)
    above = [path if path.is_dir() else path.parent for path in map(Path.absolute, paths)]
    for folder in above:
        for parent in (folder, *folder.parents):
            if (found := parent / "pyproject.toml").is_file():
                table = _table(_read(found), found)
                if table is not None:
                    return _checked(table, found)
                break
    return CoverageConfig()


def _read(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CoverageError(f"{file} cannot be read: {error.strerror}; name another file with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CoverageError(f"{file} is no TOML: {error}; correct it") from None


def _table(document: dict[str, object], file: Path) -> dict[str, object] | None:
    found: object = document
    for name in TABLE:
        if not isinstance(found, dict):
            raise CoverageError(f"{file}: {'.'.join(TABLE)} is no table; write [tool.relight.coverage]")
        found = found.get(name)
        if found is None:
            return None
    if not isinstance(found, dict):
        raise CoverageError(f"{file}: {'.'.join(TABLE)} is no table; write [tool.relight.coverage]")
    return found


def _checked(table: dict[str, object], file: Path) -> CoverageConfig:
    if "root" in table:
        raise CoverageError(f"{file}: root is no field; it is the file's own folder")
    try:
        return CoverageConfig.model_validate({**table, "root": file.absolute().parent})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            model = Priorities if field.startswith("priorities.") else CoverageConfig
            known = ", ".join(name for name in model.model_fields if name != "root")
            raise CoverageError(f"{file}: {field} is no field; remove it, or choose one of {known}") from None
        raise CoverageError(f"{file}: {field} is invalid: {fault['msg']}; correct or remove it") from None


def _dotted(name: str) -> str:
    return name.replace(":", ".")
