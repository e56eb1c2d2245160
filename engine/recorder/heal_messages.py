"""What is asked of recorders over core NATS when something is missing on the stream, and what they answer."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from relight.engine.log.numbers import MOST

MISSING = "heal.missing"
"""Core NATS: `Request`s of who found something missing; whoever holds some of it answers with `Report`s."""
HERE = "heal.here"
"""Core NATS: a recorder is there now, and would answer."""

Run = tuple[Annotated[int, Field(ge=1, le=MOST)], Annotated[int, Field(ge=1, le=MOST)]]


class Lost(BaseModel):
    """Numbers of one publisher that the stream lacks; of a control subject, its revisions."""

    model_config = ConfigDict(frozen=True)

    publisher: str
    runs: tuple[Run, ...]


class Request(BaseModel):
    """Who has these? `patient`: others may have what belongs between them."""

    model_config = ConfigDict(frozen=True)

    missing: tuple[Lost, ...]
    patient: bool = True


class Report(BaseModel):
    """What a recorder does about a request: at first that it is at work, and once it is `done`, what it put back."""

    model_config = ConfigDict(frozen=True)

    recorder: str
    healed: tuple[Lost, ...] = ()
    done: bool
