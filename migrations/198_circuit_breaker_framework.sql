-- Circuit breakers: the state of each dependency, and what happened there.

SET LOCAL ROLE relight_owner;

CREATE TABLE circuit_breaker_states (
    tenant text NOT NULL,
    service_name text NOT NULL,
    state text CHECK (state IN ('closed', 'open', 'half_open')),
    region text,
    failure_count bigint,
    reason text,
    opened_at timestamptz,
    next_retry_at timestamptz,
    ruling_rev bigint,
    ruling_event_id uuid,
    last_failure_at timestamptz,
    last_error_class text,
    last_failure_rev bigint,
    last_failure_event_id uuid,
    PRIMARY KEY (tenant, service_name)
);
CREATE INDEX circuit_breaker_states_not_closed ON circuit_breaker_states (tenant, opened_at DESC)
WHERE state IN ('open', 'half_open');
COMMENT ON TABLE circuit_breaker_states IS 'The fleet''s ruling on each dependency, and its last failure.';
COMMENT ON COLUMN circuit_breaker_states.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN circuit_breaker_states.service_name IS 'The dependency.';
COMMENT ON COLUMN circuit_breaker_states.state IS 'closed: calls pass; open: none; half_open: leased probes.';
COMMENT ON COLUMN circuit_breaker_states.region IS 'Where the ruling was made.';
COMMENT ON COLUMN circuit_breaker_states.failure_count IS 'Failures that the ruling counted.';
COMMENT ON COLUMN circuit_breaker_states.reason IS 'Why the ruling was made.';
COMMENT ON COLUMN circuit_breaker_states.opened_at IS 'Since when it is not closed.';
COMMENT ON COLUMN circuit_breaker_states.next_retry_at IS 'No call before it.';
COMMENT ON COLUMN circuit_breaker_states.ruling_rev IS 'Revision of the ruling.';
COMMENT ON COLUMN circuit_breaker_states.ruling_event_id IS 'The event that ruled.';
COMMENT ON COLUMN circuit_breaker_states.last_failure_at IS 'When a call failed last.';
COMMENT ON COLUMN circuit_breaker_states.last_error_class IS 'How it failed.';
COMMENT ON COLUMN circuit_breaker_states.last_failure_rev IS '0: observations have no revision.';
COMMENT ON COLUMN circuit_breaker_states.last_failure_event_id IS 'The event of the last failure.';
CALL relight_protect('circuit_breaker_states');

CREATE TABLE circuit_breaker_events (
    tenant text NOT NULL,
    event_id uuid NOT NULL,
    region text NOT NULL,
    occurred_at timestamptz NOT NULL,
    service_name text NOT NULL,
    event_type text NOT NULL CHECK (event_type IN ('failure', 'success', 'opened', 'closed', 'half_opened')),
    details jsonb NOT NULL,
    PRIMARY KEY (tenant, event_id)
);
CREATE INDEX circuit_breaker_events_service ON circuit_breaker_events (tenant, service_name, event_id);
COMMENT ON TABLE circuit_breaker_events IS 'Every call''s result and every ruling, per dependency.';
COMMENT ON COLUMN circuit_breaker_events.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN circuit_breaker_events.event_id IS 'The event.';
COMMENT ON COLUMN circuit_breaker_events.region IS 'Where it happened.';
COMMENT ON COLUMN circuit_breaker_events.occurred_at IS 'When it happened.';
COMMENT ON COLUMN circuit_breaker_events.service_name IS 'The dependency.';
COMMENT ON COLUMN circuit_breaker_events.event_type IS 'What happened.';
COMMENT ON COLUMN circuit_breaker_events.details IS 'Error class, latency in milliseconds, or the ruling''s reason.';
CALL relight_protect('circuit_breaker_events');
