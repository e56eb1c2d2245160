"""A state's model in its version: how a state is written, and read again whatever version it was written in."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import orjson
from pydantic import BaseModel, JsonValue, ValidationError

from relight.engine.errors import TaskRefused
from relight.engine.tasks.sessions.envelope import canonical

MAX_STATE_BYTES = 64 << 20

Migrate = Callable[[dict[str, JsonValue]], dict[str, JsonValue]]
StateT = TypeVar("StateT", bound=BaseModel)


class StateSchema(Generic[StateT]):
    """`migrate[n]` makes a state of version n + 1 out of one of version n; both are JSON objects."""

    def __init__(self, model: type[StateT], version: int, migrate: Mapping[int, Migrate]) -> None:
        if version < 1:
            raise TaskRefused(f"version {version} of {model.__name__}: versions are counted from 1")
        if later := [number for number in migrate if number >= version]:
            raise TaskRefused(
                f"{model.__name__} is at version {version}, but there is a migration from {max(later)}: raise `version`"
            )
        self.model = model
        self.version = version
        self._migrate = migrate

    def new(self) -> StateT:
        """The state of a session that begins."""
        try:
            return self.model()
        except ValidationError as error:
            raise TaskRefused(
                f"a new {self.model.__name__} needs values ({_first(error)}): give the session `initial`"
            ) from None

    def dump(self, state: StateT) -> JsonValue:
        """As JSON that reads back as the same, to the byte. Raises `TaskRefused` for what does not."""
        name = self.model.__name__
        if not isinstance(state, self.model):
            raise TaskRefused(f"a checkpoint wants a {name}, not a {type(state).__name__}")
        try:
            body = canonical(state.model_dump(mode="json", round_trip=True))
            again = canonical(self.model.model_validate_json(body).model_dump(mode="json", round_trip=True))
        except (TypeError, ValueError) as error:
            raise TaskRefused(f"this {name} cannot be written as JSON and read again: {error}") from None
        if body != again:
            raise TaskRefused(f"this {name} reads back from JSON as another one: its fields must round-trip")
        if len(body) > MAX_STATE_BYTES:
            raise TaskRefused(f"this {name} takes {len(body)} bytes, more than the {MAX_STATE_BYTES} of a snapshot")
        dumped: JsonValue = orjson.loads(body)
        return dumped

    def load(self, state: JsonValue, version: int) -> StateT:
        """Migrated one version at a time. Raises `TaskRefused`."""
        name = self.model.__name__
        if version > self.version:
            raise TaskRefused(
                f"the snapshot has {name} in version {version}, this code knows {self.version}: it was written by a"
                " later one, work on the task with that"
            )
        for number in range(version, self.version):
            if number not in self._migrate:
                raise TaskRefused(f"the snapshot has {name} in version {version}: there is no migration from {number}")
            if not isinstance(state, dict):
                raise TaskRefused(f"the snapshot's {name} in version {number} is no JSON object: it cannot be migrated")
            state = self._migrate[number](state)
        try:
            return self.model.model_validate_json(canonical(state))
        except (TypeError, ValueError) as error:
            said = _first(error) if isinstance(error, ValidationError) else str(error)
            raise TaskRefused(
                f"the snapshot's state of version {version} is no {name} of version {self.version} ({said}): raise"
                " `version` and give a migration"
            ) from None


def _first(error: ValidationError) -> str:
    told = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, told['loc']))}: {told['msg']}"
