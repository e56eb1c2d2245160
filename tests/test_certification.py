"""Certification: what was granted and what was revoked stand side by side, in whichever order they arrive."""

from folding import fact, given, moment

from relight.events.certification import (
    CertificationGranted,
    CertificationLevel,
    CertificationRevoked,
    CertificationTested,
)
from relight.projections.certification import CERTIFICATIONS, RESULTS

TESTED = CertificationTested(
    certification="c",
    component_name="refund-agent",
    test_name="region loss",
    test_category="failover",
    passed=True,
    details={"recovered_s": 4.5},
    executed_at=moment(0),
)
GRANTED = CertificationGranted(
    certification="c",
    component_name="refund-agent",
    certification_level=CertificationLevel.ADVANCED,
    tests_passed=41,
    tests_failed=1,
    overall_score=0.97,
    granted_by="kim",
    expires_at=moment(900),
)
REVOKED = CertificationRevoked(certification="c", component_name="refund-agent", reason="regression", revoked_by="lee")


def test_a_grant_says_what_it_rests_on_and_how_long_it_holds() -> None:
    [row] = given(TESTED, GRANTED).when(times=2).then(CERTIFICATIONS)
    assert (row["certification_level"], row["overall_score"]) == ("advanced", 0.97)
    assert (row["tests_passed"], row["tests_failed"]) == (41, 1)
    assert (row["certified_at"], row["expires_at"], row["revoked_at"]) == (moment(2), moment(900), None)


def test_a_revocation_stands_even_beside_a_grant_with_a_later_clock() -> None:
    [row] = given(fact(REVOKED, tick=1), fact(GRANTED, tick=2)).when(times=2).then(CERTIFICATIONS)
    assert (row["revocation_reason"], row["revoked_by"], row["revoked_at"]) == ("regression", "lee", moment(1))
    assert row["certification_level"] == "advanced"


def test_every_test_is_kept_and_grants_nothing_by_itself() -> None:
    failed = TESTED.model_copy(update={"passed": False})
    folded = given(TESTED, failed).when(times=2)
    assert [(row["test_name"], row["passed"]) for row in folded.then(RESULTS)] == [
        ("region loss", True),
        ("region loss", False),
    ]
    assert folded.then(RESULTS)[0]["details"] == {"recovered_s": 4.5}
    assert folded.then(CERTIFICATIONS) == []
