-- Model calls among the decisions, the latest first.

SET LOCAL ROLE relight_owner;

-- A migration is one transaction. Only the projector waits meanwhile: reads go on, and recording does not need the table.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX autopilot_decisions_calls ON autopilot_decisions (tenant, choice_event_id) WHERE provider IS NOT NULL;
