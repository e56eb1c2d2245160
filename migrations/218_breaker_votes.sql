-- Votes of processes' own breakers: a few rows among all calls of a dependency.

SET LOCAL ROLE relight_owner;

-- A migration is one transaction. Only the projector waits meanwhile: reads go on, and recording does not need the table.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX circuit_breaker_events_votes ON circuit_breaker_events (tenant, service_name, event_id)
WHERE event_type IN ('tripped', 'reset');
