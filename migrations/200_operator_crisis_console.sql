-- Incidents: what operators saw go wrong, and what they did about it.

SET LOCAL ROLE relight_owner;

CREATE TABLE crisis_incidents (
    tenant text NOT NULL,
    incident text NOT NULL,
    incident_name text,
    region text,
    reopens text,
    opened_by text,
    opened_at timestamptz,
    opening_rev bigint,
    opening_event_id uuid,
    severity text CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    affected_domains text[],
    description text,
    assessment_rev bigint,
    assessment_event_id uuid,
    status text CHECK (status IN ('active', 'mitigating', 'resolved', 'postmortem')),
    status_by text,
    status_at timestamptz,
    progress_rev bigint,
    progress_event_id uuid,
    remediation_steps text[],
    remediation_rev bigint,
    remediation_event_id uuid,
    resolution text,
    resolved_at timestamptz,
    resolution_rev bigint,
    resolution_event_id uuid,
    postmortem_summary text,
    postmortem_sha256 text,
    postmortem_rev bigint,
    postmortem_event_id uuid,
    PRIMARY KEY (tenant, incident)
);
CREATE INDEX crisis_incidents_open ON crisis_incidents (tenant, progress_event_id)
WHERE status IN ('active', 'mitigating');
CREATE INDEX crisis_incidents_status ON crisis_incidents (tenant, status, progress_event_id);
COMMENT ON TABLE crisis_incidents IS 'Each incident; its status only moves forward.';
COMMENT ON COLUMN crisis_incidents.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN crisis_incidents.incident IS 'The incident.';
COMMENT ON COLUMN crisis_incidents.incident_name IS 'What people call it.';
COMMENT ON COLUMN crisis_incidents.region IS 'Where it was opened.';
COMMENT ON COLUMN crisis_incidents.reopens IS 'The earlier incident that broke out again.';
COMMENT ON COLUMN crisis_incidents.opened_by IS 'Who opened it.';
COMMENT ON COLUMN crisis_incidents.opened_at IS 'When it was opened.';
COMMENT ON COLUMN crisis_incidents.opening_rev IS '0: observations have no revision.';
COMMENT ON COLUMN crisis_incidents.opening_event_id IS 'The event that opened it.';
COMMENT ON COLUMN crisis_incidents.severity IS 'How bad it is.';
COMMENT ON COLUMN crisis_incidents.affected_domains IS 'What is affected.';
COMMENT ON COLUMN crisis_incidents.description IS 'What is wrong.';
COMMENT ON COLUMN crisis_incidents.assessment_rev IS '0: as opened, 1: reassessed.';
COMMENT ON COLUMN crisis_incidents.assessment_event_id IS 'The event of the assessment.';
COMMENT ON COLUMN crisis_incidents.status IS 'active, mitigating, resolved, postmortem (published).';
COMMENT ON COLUMN crisis_incidents.status_by IS 'Who moved it there.';
COMMENT ON COLUMN crisis_incidents.status_at IS 'Since when.';
COMMENT ON COLUMN crisis_incidents.progress_rev IS '0: active, 1: mitigating, 2: resolved, 3: postmortem.';
COMMENT ON COLUMN crisis_incidents.progress_event_id IS 'The event that moved it there.';
COMMENT ON COLUMN crisis_incidents.remediation_steps IS 'What is to be done, in order.';
COMMENT ON COLUMN crisis_incidents.remediation_rev IS '0: observations have no revision.';
COMMENT ON COLUMN crisis_incidents.remediation_event_id IS 'The event with the latest plan.';
COMMENT ON COLUMN crisis_incidents.resolution IS 'How it was resolved.';
COMMENT ON COLUMN crisis_incidents.resolved_at IS 'When it was resolved.';
COMMENT ON COLUMN crisis_incidents.resolution_rev IS '0: observations have no revision.';
COMMENT ON COLUMN crisis_incidents.resolution_event_id IS 'The event that resolved it.';
COMMENT ON COLUMN crisis_incidents.postmortem_summary IS 'What was learned.';
COMMENT ON COLUMN crisis_incidents.postmortem_sha256 IS 'Where the document lies in the content store.';
COMMENT ON COLUMN crisis_incidents.postmortem_rev IS '0: observations have no revision.';
COMMENT ON COLUMN crisis_incidents.postmortem_event_id IS 'The event that published it.';
CALL relight_protect('crisis_incidents');

CREATE TABLE crisis_recovery_logs (
    tenant text NOT NULL,
    event_id uuid NOT NULL,
    region text NOT NULL,
    occurred_at timestamptz NOT NULL,
    incident text NOT NULL,
    action_taken text NOT NULL,
    executed_by text NOT NULL,
    assumptions text[] NOT NULL,
    result text,
    details jsonb NOT NULL,
    PRIMARY KEY (tenant, event_id)
);
CREATE INDEX crisis_recovery_logs_incident ON crisis_recovery_logs (tenant, incident, event_id);
COMMENT ON TABLE crisis_recovery_logs IS
'Everything that was done in every incident, its openings and changes of status among it.';
COMMENT ON COLUMN crisis_recovery_logs.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN crisis_recovery_logs.event_id IS 'The event.';
COMMENT ON COLUMN crisis_recovery_logs.region IS 'Where it was recorded.';
COMMENT ON COLUMN crisis_recovery_logs.occurred_at IS 'When it happened.';
COMMENT ON COLUMN crisis_recovery_logs.incident IS 'The incident.';
COMMENT ON COLUMN crisis_recovery_logs.action_taken IS
'opened, reassessed, mitigation_started, resolved, postmortem_published, or what was done, in words.';
COMMENT ON COLUMN crisis_recovery_logs.executed_by IS 'Who did it.';
COMMENT ON COLUMN crisis_recovery_logs.assumptions IS 'What it rests on.';
COMMENT ON COLUMN crisis_recovery_logs.result IS 'What came of it; null where it is not known.';
COMMENT ON COLUMN crisis_recovery_logs.details IS 'Of an opening or change of status: what it set.';
CALL relight_protect('crisis_recovery_logs');
