-- Intelligence: snapshots of what agents know, and their copies in other regions.

SET LOCAL ROLE relight_owner;

CREATE TABLE intelligence_snapshots (
    tenant text NOT NULL,
    snapshot text NOT NULL,
    snapshot_type text,
    source_region text,
    agent text,
    task text,
    epoch bigint,
    data jsonb,
    checksum text,
    taken_at timestamptz,
    taking_rev bigint,
    taking_event_id uuid,
    replicated_to text[],
    replicated_to_event_id uuid,
    PRIMARY KEY (tenant, snapshot)
);
CREATE INDEX intelligence_snapshots_task ON intelligence_snapshots
(tenant, task, epoch DESC NULLS LAST, taking_event_id DESC);
CREATE INDEX intelligence_snapshots_not_replicated ON intelligence_snapshots (tenant, taking_event_id)
WHERE replicated_to IS NULL;
COMMENT ON TABLE intelligence_snapshots IS 'Each snapshot and the regions that hold a copy.';
COMMENT ON COLUMN intelligence_snapshots.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN intelligence_snapshots.snapshot IS 'The snapshot.';
COMMENT ON COLUMN intelligence_snapshots.snapshot_type IS 'What kind of state it is.';
COMMENT ON COLUMN intelligence_snapshots.source_region IS 'Where it was taken.';
COMMENT ON COLUMN intelligence_snapshots.agent IS 'Whose knowledge it is.';
COMMENT ON COLUMN intelligence_snapshots.task IS 'For which task.';
COMMENT ON COLUMN intelligence_snapshots.epoch IS
'The task''s epoch then; one of an older epoch is never resumed from.';
COMMENT ON COLUMN intelligence_snapshots.data IS 'Where it lies in the content store: sha256, size_bytes.';
COMMENT ON COLUMN intelligence_snapshots.checksum IS 'SHA-256 of it.';
COMMENT ON COLUMN intelligence_snapshots.taken_at IS 'When it was taken.';
COMMENT ON COLUMN intelligence_snapshots.taking_rev IS '0: observations have no revision.';
COMMENT ON COLUMN intelligence_snapshots.taking_event_id IS 'The event that recorded it.';
COMMENT ON COLUMN intelligence_snapshots.replicated_to IS 'Regions in which a copy stands, in order of name.';
COMMENT ON COLUMN intelligence_snapshots.replicated_to_event_id IS 'The highest event that added one.';
CALL relight_protect('intelligence_snapshots');

CREATE TABLE intelligence_replication_logs (
    tenant text NOT NULL,
    event_id uuid NOT NULL,
    region text NOT NULL,
    occurred_at timestamptz NOT NULL,
    snapshot text NOT NULL,
    target_region text NOT NULL,
    replication_status text NOT NULL CHECK (replication_status IN ('pending', 'in_progress', 'completed', 'failed')),
    started_at timestamptz,
    completed_at timestamptz,
    verified_checksum text,
    reason text,
    PRIMARY KEY (tenant, event_id)
);
CREATE INDEX intelligence_replication_logs_snapshot ON intelligence_replication_logs (tenant, snapshot, event_id);
COMMENT ON TABLE intelligence_replication_logs IS 'Every step of every copy of a snapshot.';
COMMENT ON COLUMN intelligence_replication_logs.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN intelligence_replication_logs.event_id IS 'The event.';
COMMENT ON COLUMN intelligence_replication_logs.region IS 'Where it was recorded.';
COMMENT ON COLUMN intelligence_replication_logs.occurred_at IS 'When it happened.';
COMMENT ON COLUMN intelligence_replication_logs.snapshot IS 'The snapshot.';
COMMENT ON COLUMN intelligence_replication_logs.target_region IS 'Where the copy goes.';
COMMENT ON COLUMN intelligence_replication_logs.replication_status IS 'How far the copy was.';
COMMENT ON COLUMN intelligence_replication_logs.started_at IS 'When the copy began.';
COMMENT ON COLUMN intelligence_replication_logs.completed_at IS 'When it ended, well or not.';
COMMENT ON COLUMN intelligence_replication_logs.verified_checksum IS 'SHA-256 of what was read back in the target.';
COMMENT ON COLUMN intelligence_replication_logs.reason IS 'Of a failure: why.';
CALL relight_protect('intelligence_replication_logs');
