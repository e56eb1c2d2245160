-- Calls that were counted, by the place that made them: a few rows a minute among all steps of all decisions.

SET LOCAL ROLE relight_owner;

-- A migration is one transaction. Only the projector waits meanwhile: reads go on, and recording does not need the table.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX decision_audit_logs_counted ON decision_audit_logs (tenant, event_id)
WHERE checkpoint_type = 'calls_counted';
