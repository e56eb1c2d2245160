"""The base of every event: what a fact is, and what a ruling adds to it."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns the data of one version into that of the next; pure, and never edited once released."""


class Event(BaseModel):
    """An observation: a fact that nobody has to agree on.

    `class BreakerFailed(Event, type="breakers.failed", entity="service_name")`; `version` is that of the data, and
    `upcasts[n]` turns data of version n into n + 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    TYPE: ClassVar[str]
    VERSION: ClassVar[int]
    UPCASTS: ClassVar[dict[int, Upcast]]
    ENTITY: ClassVar[str]
    POLICY: ClassVar[str | None] = None

    def __init_subclass__(
        cls,
        *,
        type: str | None = None,
        entity: str | None = None,
        policy: str | None = None,
        version: int = 1,
        upcasts: dict[int, Upcast] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if entity is not None:
            cls.ENTITY = entity
        if policy is not None:
            cls.POLICY = policy
        if type is not None:
            cls.TYPE, cls.VERSION, cls.UPCASTS = type, version, upcasts or {}

    @classmethod
    def __pydantic_init_subclass__(cls, *, type: str | None = None, **_: Any) -> None:
        if type is None:
            return
        if set(cls.UPCASTS) != set(range(1, cls.VERSION)):
            raise TypeError(f"{type}: version {cls.VERSION} needs one upcast from each of 1..{cls.VERSION - 1}")
        if cls.ENTITY not in cls.model_fields and not isinstance(getattr(cls, cls.ENTITY, None), property):
            raise TypeError(f"{type}: entity {cls.ENTITY!r} is no field of it")
        if TYPES.setdefault(type, cls) is not cls:
            raise TypeError(f"{type} is declared twice: {TYPES[type].__qualname__} and {cls.__qualname__}")

    @property
    def entity(self) -> str:
        """Whom the fact is about: the CloudEvents `subject`."""
        return str(getattr(self, self.ENTITY))

    @property
    def written_version(self) -> int:
        """Of its data: the lowest that can say it, so that what says nothing new keeps its bytes in later releases."""
        return self.VERSION

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
        """Validates all the same: an instance is always a valid event, so the recorder need not ask again."""
        return cls.model_validate(values)

    def model_copy(self, *, update: Any = None, deep: bool = False) -> Self:
        """Validates all the same, as `model_construct` does."""
        return type(self).model_validate({**self.model_dump(), **(update or {})})


class Control(Event):
    """A ruling: appended by compare-and-set to the one subject `ctl.<policy>.<tenant>.<entity>`.

    `class BreakerOpened(Control, type="breakers.opened", policy="breaker", entity="service_name")`
    """


TYPES: dict[str, type[Event]] = {}
"""Every event class by its wire type; filled as the subsystems' files are imported (`relight.events.catalog`)."""
