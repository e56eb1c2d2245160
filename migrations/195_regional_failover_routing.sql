-- Failover: which regions stand in for which, and how fleets' traffic was moved between them.

SET LOCAL ROLE relight_owner;

CREATE TABLE failover_routing_policies (
    tenant text NOT NULL,
    policy_name text NOT NULL,
    source_region text,
    fallback_regions text[],
    conditions jsonb,
    is_active boolean,
    region text,
    declared_by text,
    declared_at timestamptz,
    declaration_rev bigint,
    declaration_event_id uuid,
    PRIMARY KEY (tenant, policy_name)
);
CREATE INDEX failover_routing_policies_source ON failover_routing_policies (tenant, source_region, policy_name)
WHERE is_active;
COMMENT ON TABLE failover_routing_policies IS 'What operators declared: who stands in for a region.';
COMMENT ON COLUMN failover_routing_policies.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN failover_routing_policies.policy_name IS 'The policy.';
COMMENT ON COLUMN failover_routing_policies.source_region IS 'The region that might fail.';
COMMENT ON COLUMN failover_routing_policies.fallback_regions IS 'Who stands in for it, in order of preference.';
COMMENT ON COLUMN failover_routing_policies.conditions IS 'Under which conditions.';
COMMENT ON COLUMN failover_routing_policies.is_active IS 'Whether it is in force.';
COMMENT ON COLUMN failover_routing_policies.region IS 'Where it was declared.';
COMMENT ON COLUMN failover_routing_policies.declared_by IS 'Who declared it.';
COMMENT ON COLUMN failover_routing_policies.declared_at IS 'When it was declared.';
COMMENT ON COLUMN failover_routing_policies.declaration_rev IS '0: observations have no revision.';
COMMENT ON COLUMN failover_routing_policies.declaration_event_id IS 'The event that declared it.';
CALL relight_protect('failover_routing_policies');

CREATE TABLE failover_events (
    tenant text NOT NULL,
    event_id uuid NOT NULL,
    region text NOT NULL,
    occurred_at timestamptz NOT NULL,
    fleet text NOT NULL,
    policy text,
    source_region text NOT NULL,
    target_region text NOT NULL,
    active_regions text[] NOT NULL,
    reason text NOT NULL,
    phase text NOT NULL CHECK (phase IN ('draining', 'switching', 'completed', 'aborted', 'returned')),
    is_degraded_mode boolean NOT NULL,
    compliance_preserved boolean NOT NULL,
    confidence double precision CHECK (confidence BETWEEN 0 AND 1),
    ordered_by text,
    expires_at timestamptz,
    receipt jsonb,
    PRIMARY KEY (tenant, event_id)
);
CREATE INDEX failover_events_fleet ON failover_events (tenant, fleet, event_id);
COMMENT ON TABLE failover_events IS
'Every ruling on every fleet''s routing; the latest of a fleet says where its traffic goes.';
COMMENT ON COLUMN failover_events.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN failover_events.event_id IS 'The event.';
COMMENT ON COLUMN failover_events.region IS 'Where the ruling was made.';
COMMENT ON COLUMN failover_events.occurred_at IS 'When it happened.';
COMMENT ON COLUMN failover_events.fleet IS 'Whose routing it is.';
COMMENT ON COLUMN failover_events.policy IS 'The declared policy that ruled; null: an operator''s override.';
COMMENT ON COLUMN failover_events.source_region IS
'The region that traffic leaves; when returned, that it comes back to.';
COMMENT ON COLUMN failover_events.target_region IS 'The region that stands in.';
COMMENT ON COLUMN failover_events.active_regions IS 'All that take traffic from here on.';
COMMENT ON COLUMN failover_events.reason IS 'Why it was ruled.';
COMMENT ON COLUMN failover_events.phase IS
'draining (graceful), switching (forced), completed, aborted, returned (failback).';
COMMENT ON COLUMN failover_events.is_degraded_mode IS 'Whether the fleet runs with less than it should.';
COMMENT ON COLUMN failover_events.compliance_preserved IS 'Whether data stays where it has to stay.';
COMMENT ON COLUMN failover_events.confidence IS 'How sure the ruling is, 0 to 1.';
COMMENT ON COLUMN failover_events.ordered_by IS 'Of an override: the operator.';
COMMENT ON COLUMN failover_events.expires_at IS 'Of an override: when it ends.';
COMMENT ON COLUMN failover_events.receipt IS 'Where the receipt lies in the content store: sha256, size_bytes.';
CALL relight_protect('failover_events');
