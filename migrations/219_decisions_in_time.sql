-- Decisions of a task by when they were made: the event of a model call may get its id later than the call began.

SET LOCAL ROLE relight_owner;

-- A migration is one transaction. Only the projector waits meanwhile: reads go on, and recording does not need the table.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX autopilot_decisions_task_opened ON autopilot_decisions (tenant, task, opened_at, opening_event_id);
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX autopilot_decisions_task;
