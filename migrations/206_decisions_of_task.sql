-- Decisions by task: what its agents decided, in order.

SET LOCAL ROLE relight_owner;

-- A migration is one transaction. Only the projector waits meanwhile: reads go on, and recording does not need the table.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX autopilot_decisions_task ON autopilot_decisions (tenant, task, opening_event_id);
