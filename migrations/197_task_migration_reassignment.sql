-- Tasks: who owns each under which epoch, and how ownership moved.

SET LOCAL ROLE relight_owner;

CREATE TABLE task_assignments (
    tenant text NOT NULL,
    task text NOT NULL,
    queue text,
    payload_sha256 text,
    submitted_at timestamptz,
    submission_rev bigint,
    submission_event_id uuid,
    owner text,
    region text,
    epoch bigint,
    ownership_rev bigint,
    ownership_event_id uuid,
    status text CHECK (status IN ('pending', 'assigned', 'completed', 'failed')),
    status_reason text,
    status_at timestamptz,
    progress_rev bigint,
    progress_event_id uuid,
    PRIMARY KEY (tenant, task)
);
CREATE INDEX task_assignments_status ON task_assignments (tenant, status, status_at);
CREATE INDEX task_assignments_region ON task_assignments (tenant, region, ownership_event_id);
COMMENT ON TABLE task_assignments IS 'Each task: its queue, its owner under the current epoch, and how far it is.';
COMMENT ON COLUMN task_assignments.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN task_assignments.task IS 'The task.';
COMMENT ON COLUMN task_assignments.queue IS 'The queue it was submitted to.';
COMMENT ON COLUMN task_assignments.payload_sha256 IS 'Where its payload lies in the content store.';
COMMENT ON COLUMN task_assignments.submitted_at IS 'When it was submitted.';
COMMENT ON COLUMN task_assignments.submission_rev IS 'Revision of the submission.';
COMMENT ON COLUMN task_assignments.submission_event_id IS 'The event that submitted it.';
COMMENT ON COLUMN task_assignments.owner IS 'The agent that holds it.';
COMMENT ON COLUMN task_assignments.region IS 'The region of that agent.';
COMMENT ON COLUMN task_assignments.epoch IS 'Fencing token: only this epoch''s owner may complete it.';
COMMENT ON COLUMN task_assignments.ownership_rev IS 'Revision of the ownership; equals the epoch.';
COMMENT ON COLUMN task_assignments.ownership_event_id IS 'The event that assigned it.';
COMMENT ON COLUMN task_assignments.status IS 'How far it is.';
COMMENT ON COLUMN task_assignments.status_reason IS 'Why, where there is a reason.';
COMMENT ON COLUMN task_assignments.status_at IS 'Since when.';
COMMENT ON COLUMN task_assignments.progress_rev IS 'Revision of the status.';
COMMENT ON COLUMN task_assignments.progress_event_id IS 'The event that set the status.';
CALL relight_protect('task_assignments');

CREATE TABLE task_migration_history (
    tenant text NOT NULL,
    event_id uuid NOT NULL,
    region text NOT NULL,
    occurred_at timestamptz NOT NULL,
    task text NOT NULL,
    from_region text NOT NULL,
    to_region text NOT NULL,
    from_owner text,
    to_owner text,
    epoch bigint,
    reason text NOT NULL,
    migration_status text NOT NULL CHECK (migration_status IN ('initiated', 'in_progress', 'completed', 'failed')),
    started_at timestamptz NOT NULL,
    completed_at timestamptz,
    PRIMARY KEY (tenant, event_id)
);
CREATE INDEX task_migration_history_task ON task_migration_history (tenant, task, event_id);
COMMENT ON TABLE task_migration_history IS 'Every step of every move of a task between owners.';
COMMENT ON COLUMN task_migration_history.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN task_migration_history.event_id IS 'The event.';
COMMENT ON COLUMN task_migration_history.region IS 'Where it was recorded.';
COMMENT ON COLUMN task_migration_history.occurred_at IS 'When it happened.';
COMMENT ON COLUMN task_migration_history.task IS 'The task.';
COMMENT ON COLUMN task_migration_history.from_region IS 'The region that lost it.';
COMMENT ON COLUMN task_migration_history.to_region IS 'The region that took it.';
COMMENT ON COLUMN task_migration_history.from_owner IS 'Who held it; known to the reassignment.';
COMMENT ON COLUMN task_migration_history.to_owner IS 'Who holds it now; known to the reassignment.';
COMMENT ON COLUMN task_migration_history.epoch IS 'The new epoch; known to the reassignment.';
COMMENT ON COLUMN task_migration_history.reason IS 'Why it moved.';
COMMENT ON COLUMN task_migration_history.migration_status IS 'How far the move was.';
COMMENT ON COLUMN task_migration_history.started_at IS 'When the move began.';
COMMENT ON COLUMN task_migration_history.completed_at IS 'When it ended, well or not.';
CALL relight_protect('task_migration_history');
