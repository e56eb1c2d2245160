-- Queues: which region leads each, and what was copied or handed over between regions.

SET LOCAL ROLE relight_owner;

CREATE TABLE federated_queues (
    tenant text NOT NULL,
    queue_name text NOT NULL,
    primary_region text,
    replica_regions text[],
    is_active boolean,
    region text,
    reason text,
    routed_at timestamptz,
    routing_rev bigint,
    routing_event_id uuid,
    PRIMARY KEY (tenant, queue_name)
);
CREATE INDEX federated_queues_primary ON federated_queues (tenant, primary_region, queue_name) WHERE is_active;
COMMENT ON TABLE federated_queues IS 'Each queue''s routing.';
COMMENT ON COLUMN federated_queues.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN federated_queues.queue_name IS 'The queue.';
COMMENT ON COLUMN federated_queues.primary_region IS 'The region that leads it.';
COMMENT ON COLUMN federated_queues.replica_regions IS 'Regions that hold a copy.';
COMMENT ON COLUMN federated_queues.is_active IS 'Whether it takes tasks.';
COMMENT ON COLUMN federated_queues.region IS 'Where the ruling was made.';
COMMENT ON COLUMN federated_queues.reason IS 'Why the ruling was made.';
COMMENT ON COLUMN federated_queues.routed_at IS 'Since when it is routed like this.';
COMMENT ON COLUMN federated_queues.routing_rev IS 'Revision of the routing.';
COMMENT ON COLUMN federated_queues.routing_event_id IS 'The event that ruled.';
CALL relight_protect('federated_queues');

CREATE TABLE queue_federation_events (
    tenant text NOT NULL,
    event_id uuid NOT NULL,
    region text NOT NULL,
    occurred_at timestamptz NOT NULL,
    queue_name text NOT NULL,
    event_type text NOT NULL CHECK (event_type IN ('replication', 'failover', 'recovered')),
    from_region text NOT NULL,
    to_region text NOT NULL,
    task_count bigint,
    lag_ms bigint,
    reason text,
    PRIMARY KEY (tenant, event_id)
);
CREATE INDEX queue_federation_events_queue ON queue_federation_events (tenant, queue_name, event_id);
CREATE INDEX queue_federation_events_moves ON queue_federation_events (tenant, event_id)
WHERE event_type IN ('failover', 'recovered');
COMMENT ON TABLE queue_federation_events IS 'Every copy and every handover of a queue''s tasks between regions.';
COMMENT ON COLUMN queue_federation_events.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN queue_federation_events.event_id IS 'The event.';
COMMENT ON COLUMN queue_federation_events.region IS 'Where it was recorded.';
COMMENT ON COLUMN queue_federation_events.occurred_at IS 'When it happened.';
COMMENT ON COLUMN queue_federation_events.queue_name IS 'The queue.';
COMMENT ON COLUMN queue_federation_events.event_type IS
'replication: tasks were copied; failover, recovered: the lead moved.';
COMMENT ON COLUMN queue_federation_events.from_region IS 'The region that gave.';
COMMENT ON COLUMN queue_federation_events.to_region IS 'The region that took; after a failover or recovery it leads.';
COMMENT ON COLUMN queue_federation_events.task_count IS 'How many tasks; null where it is not known.';
COMMENT ON COLUMN queue_federation_events.lag_ms IS 'Of a copy: milliseconds that it is behind, where measured.';
COMMENT ON COLUMN queue_federation_events.reason IS 'Of a handover: why.';
CALL relight_protect('queue_federation_events');
