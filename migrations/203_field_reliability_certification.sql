-- Certification: which components were tested in the field, and what that entitles them to.

SET LOCAL ROLE relight_owner;

CREATE TABLE reliability_certifications (
    tenant text NOT NULL,
    certification text NOT NULL,
    component_name text,
    certification_level text CHECK (certification_level IN ('basic', 'standard', 'advanced', 'enterprise')),
    tests_passed bigint,
    tests_failed bigint,
    overall_score double precision CHECK (overall_score BETWEEN 0 AND 1),
    region text,
    granted_by text,
    certified_at timestamptz,
    expires_at timestamptz,
    grant_rev bigint,
    grant_event_id uuid,
    revocation_reason text,
    revoked_by text,
    revoked_at timestamptz,
    revocation_rev bigint,
    revocation_event_id uuid,
    PRIMARY KEY (tenant, certification)
);
CREATE INDEX reliability_certifications_component ON reliability_certifications
(tenant, component_name, grant_event_id);
CREATE INDEX reliability_certifications_in_force ON reliability_certifications
(tenant, (CASE WHEN expires_at IS NULL THEN 'infinity' ELSE expires_at END)) WHERE certification_level IS NOT NULL AND revoked_at IS NULL;
COMMENT ON TABLE reliability_certifications IS 'Each certification of a component, granted once and perhaps revoked.';
COMMENT ON COLUMN reliability_certifications.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN reliability_certifications.certification IS 'The certification.';
COMMENT ON COLUMN reliability_certifications.component_name IS 'The component.';
COMMENT ON COLUMN reliability_certifications.certification_level IS 'What it may be relied on for.';
COMMENT ON COLUMN reliability_certifications.tests_passed IS 'Tests that passed, as counted when it was granted.';
COMMENT ON COLUMN reliability_certifications.tests_failed IS 'Tests that failed, as counted when it was granted.';
COMMENT ON COLUMN reliability_certifications.overall_score IS 'Score over all tests, 0 to 1.';
COMMENT ON COLUMN reliability_certifications.region IS 'Where it was granted.';
COMMENT ON COLUMN reliability_certifications.granted_by IS 'Who granted it.';
COMMENT ON COLUMN reliability_certifications.certified_at IS 'When it was granted.';
COMMENT ON COLUMN reliability_certifications.expires_at IS 'When it ends; null: for good.';
COMMENT ON COLUMN reliability_certifications.grant_rev IS '0: observations have no revision.';
COMMENT ON COLUMN reliability_certifications.grant_event_id IS 'The event that granted it.';
COMMENT ON COLUMN reliability_certifications.revocation_reason IS 'Why it was revoked.';
COMMENT ON COLUMN reliability_certifications.revoked_by IS 'Who revoked it.';
COMMENT ON COLUMN reliability_certifications.revoked_at IS 'When it was revoked; null: it was not.';
COMMENT ON COLUMN reliability_certifications.revocation_rev IS '0: observations have no revision.';
COMMENT ON COLUMN reliability_certifications.revocation_event_id IS 'The event that revoked it.';
CALL relight_protect('reliability_certifications');

CREATE TABLE reliability_test_results (
    tenant text NOT NULL,
    event_id uuid NOT NULL,
    region text NOT NULL,
    occurred_at timestamptz NOT NULL,
    certification text NOT NULL,
    component_name text NOT NULL,
    test_name text NOT NULL,
    test_category text NOT NULL,
    passed boolean NOT NULL,
    details jsonb NOT NULL,
    executed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, event_id)
);
CREATE INDEX reliability_test_results_certification ON reliability_test_results
(tenant, certification, event_id);
COMMENT ON TABLE reliability_test_results IS 'Every test that ran to its end.';
COMMENT ON COLUMN reliability_test_results.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN reliability_test_results.event_id IS 'The event.';
COMMENT ON COLUMN reliability_test_results.region IS 'Where it was recorded.';
COMMENT ON COLUMN reliability_test_results.occurred_at IS 'When it happened.';
COMMENT ON COLUMN reliability_test_results.certification IS 'The certification that it stands behind, granted or not.';
COMMENT ON COLUMN reliability_test_results.component_name IS 'The component.';
COMMENT ON COLUMN reliability_test_results.test_name IS 'The test.';
COMMENT ON COLUMN reliability_test_results.test_category IS 'What kind of test.';
COMMENT ON COLUMN reliability_test_results.passed IS 'Whether it passed.';
COMMENT ON COLUMN reliability_test_results.details IS 'What was measured.';
COMMENT ON COLUMN reliability_test_results.executed_at IS 'When it ran.';
CALL relight_protect('reliability_test_results');
