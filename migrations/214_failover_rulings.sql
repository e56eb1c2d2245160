-- What a fleet is declared to be and which rules are suspended stand among the rulings on it; a failover has an id.

SET LOCAL ROLE relight_owner;

ALTER TABLE failover_events
ADD COLUMN failover text,
ADD COLUMN routing jsonb;
COMMENT ON COLUMN failover_events.source_region IS
'The region that traffic leaves; when returned, that it comes back to; - where a ruling moves none.';
COMMENT ON COLUMN failover_events.target_region IS 'The region that stands in; - where a ruling moves no traffic.';
COMMENT ON COLUMN failover_events.phase IS
'draining (graceful), switching (forced), completed, aborted, returned (failback); declared, overridden (rules are'
' suspended), override_ended.';
COMMENT ON COLUMN failover_events.failover IS 'The ruling that began the failover, or the override.';
COMMENT ON COLUMN failover_events.routing IS
'All that the fleet''s routing has come to: regions, policies, limits, who stands in for whom, what is suspended.';

-- Of the months that are there, too; later ones have them from their table.
DO $$
DECLARE
    part text;
    said record;
BEGIN
    FOR part IN SELECT partition::text FROM relight_partitions('failover_events') LOOP
        FOR said IN
            SELECT a.attname AS name, col_description(a.attrelid, a.attnum) AS comment
            FROM pg_attribute AS a
            WHERE a.attrelid = 'failover_events'::regclass AND a.attname IN ('failover', 'routing', 'source_region', 'target_region')
        LOOP
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', part, said.name, said.comment);
        END LOOP;
    END LOOP;
END
$$;

-- A migration is one transaction. Only the projector waits meanwhile: reads go on, and recording does not need the table.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX failover_events_failover ON failover_events (tenant, failover, event_id) WHERE failover IS NOT NULL;

-- The rows that are there satisfy the wider rule already; the projector alone waits while they are read.
ALTER TABLE failover_events
-- squawk-ignore ban-drop-constraint
DROP CONSTRAINT failover_events_phase_check,
-- squawk-ignore constraint-missing-not-valid
ADD CONSTRAINT failover_events_phase_check
CHECK (
    phase IN (
        'draining', 'switching', 'completed', 'aborted', 'returned', 'declared', 'overridden', 'override_ended'
    )
);
