-- Decisions: what agents decided, knowing what, and how it came out; model calls are decisions too.

SET LOCAL ROLE relight_owner;

CREATE TABLE autopilot_decisions (
    tenant text NOT NULL,
    decision text NOT NULL,
    decision_type text,
    agent text,
    task text,
    region text,
    context jsonb,
    opened_at timestamptz,
    opening_rev bigint,
    opening_event_id uuid,
    decision_taken text,
    reasoning text,
    confidence double precision CHECK (confidence BETWEEN 0 AND 1),
    provider text,
    model text,
    request_sha256 text,
    request_bytes bigint,
    choice_rev bigint,
    choice_event_id uuid,
    outcome text CHECK (outcome IN ('success', 'failure', 'unknown', 'pending')),
    error_class text,
    input_tokens bigint,
    output_tokens bigint,
    cost_microusd bigint,
    latency_ms bigint,
    request_id text,
    result_rev bigint,
    result_event_id uuid,
    PRIMARY KEY (tenant, decision)
);
CREATE INDEX autopilot_decisions_outcome ON autopilot_decisions (tenant, outcome, result_event_id);
CREATE INDEX autopilot_decisions_counts ON autopilot_decisions
(tenant, decision_type, outcome, result_event_id, input_tokens, output_tokens);
COMMENT ON TABLE autopilot_decisions IS 'Each decision of an agent, each model call among them (type agent_call).';
COMMENT ON COLUMN autopilot_decisions.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN autopilot_decisions.decision IS 'The decision.';
COMMENT ON COLUMN autopilot_decisions.decision_type IS 'What is decided; agent_call for a model call.';
COMMENT ON COLUMN autopilot_decisions.agent IS 'Who decides.';
COMMENT ON COLUMN autopilot_decisions.task IS 'For which task.';
COMMENT ON COLUMN autopilot_decisions.region IS 'Where.';
COMMENT ON COLUMN autopilot_decisions.context IS 'What the agent knew.';
COMMENT ON COLUMN autopilot_decisions.opened_at IS 'When it began, or was taken if that is known.';
COMMENT ON COLUMN autopilot_decisions.opening_rev IS '0: begun, 1: taken.';
COMMENT ON COLUMN autopilot_decisions.opening_event_id IS 'The event that opened it.';
COMMENT ON COLUMN autopilot_decisions.decision_taken IS 'What the agent chose.';
COMMENT ON COLUMN autopilot_decisions.reasoning IS 'Why it chose so.';
COMMENT ON COLUMN autopilot_decisions.confidence IS 'How sure it was, 0 to 1.';
COMMENT ON COLUMN autopilot_decisions.provider IS 'Of a model call: the provider asked.';
COMMENT ON COLUMN autopilot_decisions.model IS 'Of a model call: the model asked.';
COMMENT ON COLUMN autopilot_decisions.request_sha256 IS 'Of a model call: where the request lies in the content store.';
COMMENT ON COLUMN autopilot_decisions.request_bytes IS 'Of a model call: the request''s size.';
COMMENT ON COLUMN autopilot_decisions.choice_rev IS '0: observations have no revision.';
COMMENT ON COLUMN autopilot_decisions.choice_event_id IS 'The event that recorded the choice.';
COMMENT ON COLUMN autopilot_decisions.outcome IS 'pending until known; unknown where the source cannot tell.';
COMMENT ON COLUMN autopilot_decisions.error_class IS 'Of a failure: what kind.';
COMMENT ON COLUMN autopilot_decisions.input_tokens IS 'Of a model call: tokens read.';
COMMENT ON COLUMN autopilot_decisions.output_tokens IS 'Of a model call: tokens generated.';
COMMENT ON COLUMN autopilot_decisions.cost_microusd IS 'Of a model call: cost in millionths of a US dollar.';
COMMENT ON COLUMN autopilot_decisions.latency_ms IS 'Milliseconds from taken to outcome.';
COMMENT ON COLUMN autopilot_decisions.request_id IS 'Of a model call: the provider''s id of it.';
COMMENT ON COLUMN autopilot_decisions.result_rev IS '0: pending, 1: known.';
COMMENT ON COLUMN autopilot_decisions.result_event_id IS 'The event that set the outcome.';
CALL relight_protect('autopilot_decisions');

CREATE TABLE decision_audit_logs (
    tenant text NOT NULL,
    event_id uuid NOT NULL,
    region text NOT NULL,
    occurred_at timestamptz NOT NULL,
    decision text NOT NULL,
    checkpoint_type text NOT NULL,
    state_snapshot jsonb NOT NULL,
    content_sha256 text,
    content_bytes bigint,
    PRIMARY KEY (tenant, event_id)
);
CREATE INDEX decision_audit_logs_decision ON decision_audit_logs (tenant, decision, event_id);
COMMENT ON TABLE decision_audit_logs IS 'Every step of every decision, from begun to outcome_known.';
COMMENT ON COLUMN decision_audit_logs.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN decision_audit_logs.event_id IS 'The event.';
COMMENT ON COLUMN decision_audit_logs.region IS 'Where it happened.';
COMMENT ON COLUMN decision_audit_logs.occurred_at IS 'When it happened.';
COMMENT ON COLUMN decision_audit_logs.decision IS 'The decision.';
COMMENT ON COLUMN decision_audit_logs.checkpoint_type IS 'begun, taken, outcome_known, or the agent''s own name of the step.';
COMMENT ON COLUMN decision_audit_logs.state_snapshot IS 'What was known at this step.';
COMMENT ON COLUMN decision_audit_logs.content_sha256 IS 'Where more lies in the content store.';
COMMENT ON COLUMN decision_audit_logs.content_bytes IS 'How much more.';
CALL relight_protect('decision_audit_logs');
