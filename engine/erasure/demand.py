"""What is demanded: whose content is to be erased, and how an erasure is told from another."""

import hashlib
from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """All content of a tenant; or of its events that match all of `correlation`, `entity` and `agent`; or these
    `contents`, by SHA-256; or both.

    An agent's events are those that name it, and all others of the decisions that it took.
    """

    tenant: str
    decided_by: str
    reason: str
    correlation: str | None = None
    entity: str | None = None
    agent: str | None = None
    contents: tuple[str, ...] = ()

    @property
    def by_event(self) -> bool:
        return not (self.correlation is None and self.entity is None and self.agent is None)

    @property
    def is_everything(self) -> bool:
        return not self.by_event and not self.contents

    @property
    def scope(self) -> str:
        """In words."""
        named = [("correlation", self.correlation), ("entity", self.entity), ("agent", self.agent)]
        parts = [", ".join(f"{name} {value}" for name, value in named if value is not None)] if self.by_event else []
        if self.contents:
            parts.append(f"{len(self.contents)} contents by digest")
        return " and ".join(parts) or "everything of the tenant"

    @property
    def erasure(self) -> str:
        """Follows from the demand: the same one, made again because it was cut short, is the same erasure."""
        said = [
            self.tenant,
            self.correlation,
            self.entity,
            self.agent,
            sorted(self.contents),
            self.decided_by,
            self.reason,
        ]
        return f"e-{hashlib.sha256(orjson.dumps(said)).hexdigest()[:32]}"
