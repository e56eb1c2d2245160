"""Limits of budgets, from a TOML file."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from relight.engine.errors import SettingsError
from relight.engine.policies.budget import Limit


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: tuple[Limit, ...] = ()


def load_limits(path: Path) -> tuple[Limit, ...]:
    """Those of `[[limit]]` tables, whose keys are a `Limit`'s. Raises `SettingsError` with what is wrong where."""
    try:
        found = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part + 1 if isinstance(part, int) else part) for part in fault["loc"])
        known = ", ".join(Limit.model_fields)
        more = f"; a limit has {known}" if fault["type"] == "extra_forbidden" else ""
        raise SettingsError(f"{path}: {where}: {fault['msg'].removeprefix('Value error, ')}{more}") from None
    except ValueError as error:
        raise SettingsError(f"{path} is no TOML: {error}") from error
    if not found.limit:
        raise SettingsError(f"{path} has no [[limit]]; name one, or use no budgets")
    return found.limit
