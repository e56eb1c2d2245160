"""A script: the steps that requests meet one after the other, and what comes after the last one."""

import tomllib
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, SkipValidation, ValidationError

from relight.engine.errors import SettingsError
from relight.engine.fake.mix import Share, drawn, parse_mix
from relight.engine.fake.steps import Step


class Then(StrEnum):
    """What follows after the last step."""

    ANSWER = "answer"
    """good answers, or what `faults` draws"""
    LAST = "last"
    """the last step for ever"""
    AGAIN = "again"
    """the first step"""


def _shares(value: object) -> object:
    return parse_mix(value) if isinstance(value, str) else value


class Script(BaseModel):
    """Steps by the number of the request, which counts from 0; without steps, every answer is a good one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[Step, ...] = ()
    then: Then = Then.ANSWER
    faults: Annotated[tuple[SkipValidation[Share], ...], BeforeValidator(_shares)] = ()
    """In a file as text: `10% 529, 2% reset_before_headers`."""
    seed: int = 0

    def step(self, number: int) -> Step:
        rounds = sum(step.times for step in self.steps)
        within = number % rounds if rounds and self.then is Then.AGAIN else number
        for step in self.steps:
            within -= step.times
            if within < 0:
                return step
        if self.steps and self.then is Then.LAST:
            return self.steps[-1]
        return drawn(self.faults, self.seed, number)


Playable = Script | Sequence[Step] | Callable[[int], Step]
"""What a fake can be given: a script, its steps, or what answers request `number` (from 0)."""


def chooser(playable: Playable) -> Callable[[int], Step]:
    match playable:
        case Script():
            return playable.step
        case Sequence():
            return Script(steps=tuple(playable)).step
        case _:
            return playable


def load_script(path: Path) -> Script:
    """From a TOML or JSON file. Raises `SettingsError` with what is wrong where."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror or error})") from error
    try:
        loaded = orjson.loads(raw) if path.suffix == ".json" else tomllib.loads(raw.decode())
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise SettingsError(f"{path} is no {kind}: {error}") from error
    try:
        return Script.model_validate(loaded)
    except ValidationError as error:
        raise SettingsError(f"{path}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    """The first fault in a sentence: where it is, and what would do."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        fields = Step.model_fields if fault["loc"][0] == "steps" else Script.model_fields
        said = f"there is no such field; the fields are {', '.join(fields)}"
    else:
        said = fault["msg"].removeprefix("Value error, ")
        said = f"{said[0].lower()}{said[1:]}, not {fault['input']!r}" if fault["type"] != "value_error" else said
    more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{where}: {said}{more}" if where else f"{said}{more}"
