"""What is stored of a session: its state, and after which step, under which epoch, following which snapshot."""

import orjson
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from relight.events.values import Content, Count, EventId, Key, Ordinal

FORMAT = 1


class Envelope(BaseModel):
    """`last` is the name of the step that it was taken after, where it has one; `previous` the snapshot before it.

    With an `id` of its own no snapshot is the same bytes as an earlier one: the store, which keeps what it has, would
    take one that was damaged or erased for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int = FORMAT
    id: EventId
    tenant: str
    task: Key
    epoch: Count
    step: Count
    last: Key | None = None
    schema_version: Ordinal
    previous: Content | None = None
    state: JsonValue

    def encoded(self) -> bytes:
        """One way of writing it: keys sorted, nothing between them."""
        return canonical({**self.model_dump(exclude={"state"}), "state": self.state})


def decoded(body: bytes) -> Envelope:
    """Raises `ValueError` where it is none, or of a later release."""
    said = orjson.loads(body)
    found = said.get("format") if isinstance(said, dict) else None
    if found != FORMAT:
        raise ValueError(f"it is no snapshot of a session that this release can read (format {found})")
    try:
        return Envelope.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"it is no snapshot of a session: {first['loc']}: {first['msg']}") from None


def canonical(value: object) -> bytes:
    """Raises `TypeError` for what JSON cannot say."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
