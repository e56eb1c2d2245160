-- Snapshots of tasks' sessions: after which step, in which version of the state's model, following which one.

SET LOCAL ROLE relight_owner;

ALTER TABLE intelligence_snapshots
ADD COLUMN step bigint,
ADD COLUMN schema_version bigint,
ADD COLUMN previous text,
ADD COLUMN session_rev bigint,
ADD COLUMN session_event_id uuid;
COMMENT ON COLUMN intelligence_snapshots.step IS 'After how many of the task''s steps it was taken.';
COMMENT ON COLUMN intelligence_snapshots.schema_version IS 'The version of the state''s model.';
COMMENT ON COLUMN intelligence_snapshots.previous IS 'The snapshot that it followed.';
COMMENT ON COLUMN intelligence_snapshots.session_rev IS '0: observations have no revision.';
COMMENT ON COLUMN intelligence_snapshots.session_event_id IS 'The event that said so.';

-- A migration is one transaction. Only the projector waits meanwhile: reads go on, and recording does not need the table.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX intelligence_snapshots_of_task ON intelligence_snapshots (tenant, task, taking_event_id);

-- Steps that tasks' owners began, a few rows among all steps of all decisions.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX decision_audit_logs_steps_begun ON decision_audit_logs (tenant, decision)
WHERE checkpoint_type = 'task_step_begun';

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX intelligence_replication_logs_proven ON intelligence_replication_logs (tenant, snapshot, event_id)
WHERE replication_status = 'completed' AND verified_checksum IS NOT NULL;
