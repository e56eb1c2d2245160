-- Fault domains: which tenants, regions, engines and providers are cut off, and how that came about.

SET LOCAL ROLE relight_owner;

CREATE TABLE fault_domains (
    tenant text NOT NULL,
    domain_type text NOT NULL CHECK (domain_type IN ('tenant', 'region', 'engine', 'provider')),
    domain_identifier text NOT NULL,
    status text CHECK (status IN ('healthy', 'degraded', 'isolated', 'recovering')),
    region text,
    cause text,
    scope text,
    cascading_risk double precision CHECK (cascading_risk BETWEEN 0 AND 1),
    confidence double precision CHECK (confidence BETWEEN 0 AND 1),
    isolation_reason text,
    status_at timestamptz,
    detected_at timestamptz,
    isolated_at timestamptz,
    recovered_at timestamptz,
    ruling_rev bigint,
    ruling_event_id uuid,
    PRIMARY KEY (tenant, domain_type, domain_identifier)
);
CREATE INDEX fault_domains_not_healthy ON fault_domains (tenant, status_at DESC)
WHERE status IN ('degraded', 'isolated', 'recovering');
COMMENT ON TABLE fault_domains IS 'The fleet''s ruling on each fault domain.';
COMMENT ON COLUMN fault_domains.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN fault_domains.domain_type IS 'What kind of thing fails as one.';
COMMENT ON COLUMN fault_domains.domain_identifier IS 'Which tenant, region, engine or provider.';
COMMENT ON COLUMN fault_domains.status IS
'healthy, degraded (takes part), isolated (cut off), recovering (let back in).';
COMMENT ON COLUMN fault_domains.region IS 'Where the ruling was made.';
COMMENT ON COLUMN fault_domains.cause IS 'Why the ruling was made.';
COMMENT ON COLUMN fault_domains.scope IS 'How far the fault reaches.';
COMMENT ON COLUMN fault_domains.cascading_risk IS 'How likely it spreads beyond the domain, 0 to 1.';
COMMENT ON COLUMN fault_domains.confidence IS 'How sure the ruling is, 0 to 1.';
COMMENT ON COLUMN fault_domains.isolation_reason IS 'Why it was isolated; kept while it recovers and after.';
COMMENT ON COLUMN fault_domains.status_at IS 'Since when it has this status.';
COMMENT ON COLUMN fault_domains.detected_at IS 'When the fault was detected.';
COMMENT ON COLUMN fault_domains.isolated_at IS 'When it was cut off.';
COMMENT ON COLUMN fault_domains.recovered_at IS 'When it was healthy again.';
COMMENT ON COLUMN fault_domains.ruling_rev IS 'Revision of the ruling.';
COMMENT ON COLUMN fault_domains.ruling_event_id IS 'The event that ruled.';
CALL relight_protect('fault_domains');

CREATE TABLE fault_isolation_events (
    tenant text NOT NULL,
    event_id uuid NOT NULL,
    region text NOT NULL,
    occurred_at timestamptz NOT NULL,
    domain_type text NOT NULL CHECK (domain_type IN ('tenant', 'region', 'engine', 'provider')),
    domain_identifier text NOT NULL,
    event_type text NOT NULL CHECK (event_type IN ('detected', 'isolated', 'recovering', 'recovered')),
    cause text NOT NULL,
    scope text NOT NULL,
    cascading_risk double precision CHECK (cascading_risk BETWEEN 0 AND 1),
    confidence double precision CHECK (confidence BETWEEN 0 AND 1),
    PRIMARY KEY (tenant, event_id)
);
CREATE INDEX fault_isolation_events_domain ON fault_isolation_events
(tenant, domain_type, domain_identifier, event_id);
COMMENT ON TABLE fault_isolation_events IS 'Every ruling on every fault domain.';
COMMENT ON COLUMN fault_isolation_events.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN fault_isolation_events.event_id IS 'The event.';
COMMENT ON COLUMN fault_isolation_events.region IS 'Where the ruling was made.';
COMMENT ON COLUMN fault_isolation_events.occurred_at IS 'When it happened.';
COMMENT ON COLUMN fault_isolation_events.domain_type IS 'What kind of thing fails as one.';
COMMENT ON COLUMN fault_isolation_events.domain_identifier IS 'Which tenant, region, engine or provider.';
COMMENT ON COLUMN fault_isolation_events.event_type IS 'What was ruled.';
COMMENT ON COLUMN fault_isolation_events.cause IS 'Why it was ruled.';
COMMENT ON COLUMN fault_isolation_events.scope IS 'How far the fault reaches.';
COMMENT ON COLUMN fault_isolation_events.cascading_risk IS 'How likely it spreads beyond the domain, 0 to 1.';
COMMENT ON COLUMN fault_isolation_events.confidence IS 'How sure the ruling is, 0 to 1.';
CALL relight_protect('fault_isolation_events');
