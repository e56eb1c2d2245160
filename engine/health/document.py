"""The body of `/health`, in the shape of draft-inadarei-api-health-check-06, and the flat one of `relight status`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue

from relight.engine.health.figures import Figures
from relight.engine.health.models import Check, CheckStatus, Health, Kind, Status

MEDIA_TYPE = "application/health+json"
"""Of the draft, which expired as one: a convention, not a standard."""
API_VERSION = "1"
DRAFT_STATUS = {
    Status.HEALTHY: CheckStatus.PASS,
    Status.DEGRADED: CheckStatus.WARN,
    Status.UNHEALTHY: CheckStatus.FAIL,
}


class Detail(BaseModel):
    """A `Check` as the draft has it; its names are the draft's."""

    model_config = ConfigDict(frozen=True)

    componentId: str | None = None
    componentType: Kind
    observedValue: JsonValue = None
    observedUnit: str | None = None
    status: CheckStatus
    time: AwareDatetime
    output: str | None = None


class Document(BaseModel):
    """The whole body; `notes` are the reasons, `output` the first of them."""

    model_config = ConfigDict(frozen=True)

    status: CheckStatus
    version: str = API_VERSION
    releaseId: str
    serviceId: str
    description: str = "Relight: ingest, projection and queries"
    notes: tuple[str, ...] = ()
    output: str | None = None
    checks: Mapping[str, Sequence[Detail]]


def document(health: Health) -> bytes:
    """JSON; what is not known is left out."""
    checks: dict[str, list[Detail]] = defaultdict(list)
    for check in health.checks:
        checks[check.key].append(
            Detail(
                componentId=check.id,
                componentType=check.kind,
                observedValue=check.observed,
                observedUnit=check.unit,
                status=check.status,
                time=check.time,
                output=check.output,
            )
        )
    reasons = health.reasons
    said = Document(
        status=DRAFT_STATUS[health.status],
        releaseId=health.release,
        serviceId=health.service_id,
        notes=tuple(reasons),
        output=reasons[0] if reasons else None,
        checks=checks,
    )
    return said.model_dump_json(exclude_none=True).encode()


def read_document(body: bytes) -> Health:
    """What `document` was made of. Raises `ValueError` when it is none."""
    said = Document.model_validate_json(body)
    return Health(
        service_id=said.serviceId,
        release=said.releaseId,
        checks=tuple(
            Check(
                component=key.partition(":")[0],
                measurement=key.partition(":")[2],
                status=detail.status,
                time=detail.time,
                kind=detail.componentType,
                id=detail.componentId,
                observed=detail.observedValue,
                unit=detail.observedUnit,
                output=detail.output,
            )
            for key, details in said.checks.items()
            for detail in details
        ),
    )


def read_flat(body: bytes) -> Health:
    """What `flat` was made of. Raises `ValueError` when it is none."""
    return Health.model_validate_json(body)


class Flat(Figures):
    """For scripts: status, reasons, the figures by name, and every check."""

    status: Status
    reasons: tuple[str, ...]
    service_id: str
    release: str
    checks: tuple[Check, ...]


def flat(health: Health) -> Flat:
    return Flat(
        **dict(health.figures),
        status=health.status,
        reasons=tuple(health.reasons),
        service_id=health.service_id,
        release=health.release,
        checks=health.checks,
    )
