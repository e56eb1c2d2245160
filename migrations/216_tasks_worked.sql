-- Tasks as they are worked: when they are due, how often they were tried, how far their session is, what came out.

SET LOCAL ROLE relight_owner;

ALTER TABLE task_assignments
ADD COLUMN priority bigint,
ADD COLUMN attempt bigint,
ADD COLUMN max_attempts bigint,
ADD COLUMN not_before timestamptz,
ADD COLUMN schedule_rev bigint,
ADD COLUMN schedule_event_id uuid,
ADD COLUMN step bigint,
ADD COLUMN snapshot_sha256 text,
ADD COLUMN session_rev bigint,
ADD COLUMN session_event_id uuid,
ADD COLUMN result_sha256 text,
ADD COLUMN outcome_rev bigint,
ADD COLUMN outcome_event_id uuid;
COMMENT ON COLUMN task_assignments.priority IS 'Among its tenant''s tasks of the queue the highest goes first.';
COMMENT ON COLUMN task_assignments.attempt IS 'How many owners'' attempts count.';
COMMENT ON COLUMN task_assignments.max_attempts IS 'After so many it is given up.';
COMMENT ON COLUMN task_assignments.not_before IS 'It is not offered earlier: a delay, or the wait after a failure.';
COMMENT ON COLUMN task_assignments.schedule_rev IS 'Revision of these.';
COMMENT ON COLUMN task_assignments.schedule_event_id IS 'The event that set them.';
COMMENT ON COLUMN task_assignments.step IS 'The last step that its session checkpointed.';
COMMENT ON COLUMN task_assignments.snapshot_sha256 IS 'Where that state lies in the content store.';
COMMENT ON COLUMN task_assignments.session_rev IS 'Revision of the checkpoint.';
COMMENT ON COLUMN task_assignments.session_event_id IS 'The event that recorded it.';
COMMENT ON COLUMN task_assignments.result_sha256 IS 'Where its result lies in the content store.';
COMMENT ON COLUMN task_assignments.outcome_rev IS 'Revision of the completion.';
COMMENT ON COLUMN task_assignments.outcome_event_id IS 'The event that completed it.';

-- A migration is one transaction. Only the projector waits meanwhile: reads go on, and recording does not need the table.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX task_assignments_pending ON task_assignments (tenant, queue, status_at) WHERE status = 'pending';

-- A released task waits for another owner. The rows that are there satisfy the wider rule already.
ALTER TABLE task_migration_history
-- squawk-ignore ban-drop-constraint
DROP CONSTRAINT task_migration_history_migration_status_check,
-- squawk-ignore constraint-missing-not-valid
ADD CONSTRAINT task_migration_history_migration_status_check
CHECK (migration_status IN ('released', 'initiated', 'in_progress', 'completed', 'failed'));
COMMENT ON COLUMN task_migration_history.to_region IS 'The region that took it; - of what was only released.';

-- Of the months that are there, too; later ones have it from their table.
DO $$
DECLARE
    part text;
BEGIN
    FOR part IN SELECT partition::text FROM relight_partitions('task_migration_history') LOOP
        EXECUTE format(
            'COMMENT ON COLUMN %s.to_region IS %L',
            part,
            (
                SELECT col_description(a.attrelid, a.attnum) FROM pg_attribute AS a
                WHERE a.attrelid = 'task_migration_history'::regclass AND a.attname = 'to_region'
            )
        );
    END LOOP;
END
$$;

-- Steps that tasks did, a few rows among all steps of all decisions.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX decision_audit_logs_steps ON decision_audit_logs (tenant, decision)
WHERE checkpoint_type = 'task_step';
