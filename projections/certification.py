"""Certification: owns `reliability_certifications` and `reliability_test_results`."""

from collections.abc import Iterator
from datetime import datetime

from relight.events.certification import CertificationGranted, CertificationRevoked, CertificationTested
from relight.events.envelope import Recorded
from relight.projections.base import Append, Change, Column, History, Projection, Put, State
from relight.projections.query import Parameter, Query, Row

CERTIFICATIONS = State(
    name="reliability_certifications",
    key={"certification": Column.TEXT},
    groups={
        "grant": {
            "component_name": Column.TEXT,
            "certification_level": Column.TEXT,
            "tests_passed": Column.BIGINT,
            "tests_failed": Column.BIGINT,
            "overall_score": Column.FLOAT,
            "region": Column.TEXT,
            "granted_by": Column.TEXT,
            "certified_at": Column.TIME,
            "expires_at": Column.TIME,
        },
        "revocation": {"revocation_reason": Column.TEXT, "revoked_by": Column.TEXT, "revoked_at": Column.TIME},
    },
)
RESULTS = History(
    name="reliability_test_results",
    columns_={
        "certification": Column.TEXT,
        "component_name": Column.TEXT,
        "test_name": Column.TEXT,
        "test_category": Column.TEXT,
        "passed": Column.BOOLEAN,
        "details": Column.OBJECT,
        "executed_at": Column.TIME,
    },
)
projection = Projection(name="certification", version=1, tables=(CERTIFICATIONS, RESULTS))


@projection.on(CertificationTested)
def tested(event: Recorded[CertificationTested]) -> Iterator[Change]:
    data = event.data
    yield Append(
        RESULTS,
        {
            "certification": data.certification,
            "component_name": data.component_name,
            "test_name": data.test_name,
            "test_category": data.test_category,
            "passed": data.passed,
            "details": data.details,
            "executed_at": data.executed_at,
        },
    )


@projection.on(CertificationGranted)
def granted(event: Recorded[CertificationGranted]) -> Iterator[Change]:
    data = event.data
    grant = {
        "component_name": data.component_name,
        "certification_level": data.certification_level.value,
        "tests_passed": data.tests_passed,
        "tests_failed": data.tests_failed,
        "overall_score": data.overall_score,
        "region": event.region,
        "granted_by": data.granted_by,
        "certified_at": event.time,
        "expires_at": data.expires_at,
    }
    yield Put(CERTIFICATIONS, (data.certification,), "grant", grant)


@projection.on(CertificationRevoked)
def revoked(event: Recorded[CertificationRevoked]) -> Iterator[Change]:
    data = event.data
    revocation = {"revocation_reason": data.reason, "revoked_by": data.revoked_by, "revoked_at": event.time}
    yield Put(CERTIFICATIONS, (data.certification,), "revocation", revocation)


class Certification(Row):
    tenant: str
    certification: str
    component_name: str
    certification_level: str
    tests_passed: int
    tests_failed: int
    overall_score: float
    certified_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    revocation_reason: str | None
    event_id: str


class FieldTest(Row):
    tenant: str
    occurred_at: datetime
    component_name: str
    test_name: str
    test_category: str
    passed: bool
    details: dict[str, object]
    executed_at: datetime
    event_id: str


queries = (
    Query(
        name="certification.in_force",
        question="Which certifications are not revoked and hold beyond this time, the first to expire first?",
        row=Certification,
        sql="""
            SELECT
                c.tenant, c.certification, c.component_name, c.certification_level, c.tests_passed, c.tests_failed,
                c.overall_score, c.certified_at, c.expires_at, c.revoked_at, c.revocation_reason,
                c.grant_event_id AS event_id
            FROM reliability_certifications AS c
            WHERE
                c.tenant = who.tenant AND c.certification_level IS NOT NULL AND c.revoked_at IS NULL
                AND CASE WHEN c.expires_at IS NULL THEN 'infinity' ELSE c.expires_at END > $at
            ORDER BY CASE WHEN c.expires_at IS NULL THEN 'infinity' ELSE c.expires_at END
            LIMIT $limit
        """,
        order="CASE WHEN expires_at IS NULL THEN 'infinity' ELSE expires_at END, tenant, certification",
        parameters={"at": Parameter(type=datetime, help="the time, usually now", required=True)},
    ),
    Query(
        name="certification.of_component",
        question="Which certifications was this component granted, latest first, and which were revoked?",
        row=Certification,
        sql="""
            SELECT
                c.tenant, c.certification, c.component_name, c.certification_level, c.tests_passed, c.tests_failed,
                c.overall_score, c.certified_at, c.expires_at, c.revoked_at, c.revocation_reason,
                c.grant_event_id AS event_id
            FROM reliability_certifications AS c
            WHERE c.tenant = who.tenant AND c.component_name = $component
            ORDER BY c.grant_event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"component": Parameter(type=str, help="the component", required=True)},
    ),
    Query(
        name="certification.results",
        question="Which tests stand behind this certification, latest first?",
        row=FieldTest,
        sql="""
            SELECT
                r.tenant, r.occurred_at, r.component_name, r.test_name, r.test_category, r.passed, r.details,
                r.executed_at, r.event_id
            FROM reliability_test_results AS r
            WHERE r.tenant = who.tenant AND r.certification = $certification
            ORDER BY r.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"certification": Parameter(type=str, help="the certification", required=True)},
    ),
)
