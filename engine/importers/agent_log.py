"""Logs of failed multi-agent runs with the annotated mistake (ag2ai/Agents_Failure_Attribution, MIT): JSON, one a file.

`history` holds the steps (`content`, `role`, sometimes `name`); `mistake_agent`, `mistake_step` (from 0) and
`mistake_reason` are the annotation; `question`, `question_ID`, `mistake_type` and `is_correct` may be there.
Nothing else is read.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from relight.engine.importers.agent_run import AgentRun, Mistake, Step
from relight.engine.importers.files import opened
from relight.engine.importers.identity import Format, Malformed
from relight.events.values import Key

MAX_FILE_BYTES = 64 << 20
MAX_STEPS = 100_000
_SPEAKER = re.compile(r"(.+?) \(.*\)")
"""A role such as `Orchestrator (-> WebSurfer)`: who speaks, and in brackets what for."""


def _step_number(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("neither a step's number nor one in text")


class _Step(BaseModel):
    content: str
    role: Key
    name: Key | None = None

    @property
    def speaker(self) -> str:
        if self.name is not None:
            return self.name
        match = _SPEAKER.fullmatch(self.role)
        return match[1] if match else self.role


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore")

    history: Annotated[list[_Step], Field(min_length=1, max_length=MAX_STEPS)]
    mistake_agent: Key
    mistake_step: Annotated[int, BeforeValidator(_step_number), Field(ge=0)]
    mistake_reason: Annotated[str, StringConstraints(min_length=1, max_length=10_000, pattern=r"^[^\x00]*$")]
    mistake_type: Key | None = None
    question: str | None = None
    question_ID: Key | None = None
    is_correct: bool | None = None

    @field_validator("is_correct")
    @classmethod
    def _failed(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("true, but a run that came out right has no decisive mistake")
        return value

    @model_validator(mode="after")
    def _within(self) -> "_Document":
        if self.mistake_step >= len(self.history):
            raise ValueError(f"mistake_step: {self.mistake_step} is beyond the last step, {len(self.history) - 1}")
        return self


def read(path: Path, now: datetime) -> Iterator[AgentRun | Malformed]:
    """The file's one run. Raises `ImportRefused` when it cannot be read."""
    with opened(path) as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    try:
        yield _run(raw)
    except ValueError as error:
        yield Malformed(line=None, reason=str(error))


def _run(raw: bytes) -> AgentRun:
    if not raw:
        raise ValueError("empty")
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"more than {MAX_FILE_BYTES >> 20} MiB")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 ({error.reason} at byte {error.start})") from None
    try:
        loaded = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error})") from None
    if not isinstance(loaded, dict):
        raise ValueError(f"no JSON object but a {type(loaded).__name__}")
    try:
        document = _Document.model_validate(loaded)
    except ValidationError as error:
        raise ValueError(_explain(error)) from None
    return AgentRun(
        question=document.question,
        question_id=document.question_ID,
        steps=tuple(Step(speaker=step.speaker, role=step.role, content=step.content) for step in document.history),
        mistake=Mistake(
            agent=document.mistake_agent,
            step=document.mistake_step,
            reason=document.mistake_reason,
            type=document.mistake_type,
        ),
    )


def _explain(error: ValidationError) -> str:
    """The first fault: where it is, and what it is, without the value."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in faults[0]["loc"]).lstrip(".")
    said = faults[0]["msg"].removeprefix("Value error, ")
    more = f"; and {len(faults) - 1} more faults" if len(faults) > 1 else ""
    return f"{where}: {said}{more}" if where else f"{said}{more}"


AGENT_LOG = Format(name="agent-log", rows="runs", one_a_file=True, read=read)
