"""What a check observed, and what all of them come to."""

from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue

from relight.engine.health.figures import Figures


class CheckStatus(StrEnum):
    """Worse ones come later."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


class Status(StrEnum):
    """Worse ones come later."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"

    @property
    def http_status(self) -> int:
        return 503 if self is Status.UNHEALTHY else 200


class Kind(StrEnum):
    """What a component is."""

    COMPONENT = "component"
    DATASTORE = "datastore"
    SYSTEM = "system"


class Check(BaseModel):
    """One observation of a component.

    `observed` is null where nothing could be observed; `output` says why it does not pass, and what to do. `id` tells
    several components of one name apart.
    """

    model_config = ConfigDict(frozen=True)

    component: str
    measurement: str
    status: CheckStatus = CheckStatus.PASS
    time: AwareDatetime
    kind: Kind = Kind.COMPONENT
    id: str | None = None
    observed: JsonValue = None
    unit: str | None = None
    output: str | None = None

    @property
    def key(self) -> str:
        return f"{self.component}:{self.measurement}"

    def warned(self, when: object, why: str) -> Self:
        """The same, as a warning where `when` is true."""
        return self.model_copy(update={"status": CheckStatus.WARN, "output": why}) if when else self

    def failed(self, when: object, why: str) -> Self:
        """The same, as a failure where `when` is true."""
        return self.model_copy(update={"status": CheckStatus.FAIL, "output": why}) if when else self


class Health(BaseModel):
    """All checks of one moment; `status` is that of the worst."""

    model_config = ConfigDict(frozen=True)

    service_id: str
    release: str
    checks: tuple[Check, ...]

    @property
    def status(self) -> Status:
        found = {check.status for check in self.checks}
        if CheckStatus.FAIL in found:
            return Status.UNHEALTHY
        return Status.DEGRADED if CheckStatus.WARN in found else Status.HEALTHY

    @property
    def reasons(self) -> list[str]:
        """Why it is not healthy, the failures first; each once."""
        said = [
            check.output or f"{check.key} is {check.observed}"
            for status in (CheckStatus.FAIL, CheckStatus.WARN)
            for check in self.checks
            if check.status is status
        ]
        return list(dict.fromkeys(said))

    @property
    def figures(self) -> Figures:
        return Figures.of({check.key: check.observed for check in self.checks if check.observed is not None})
