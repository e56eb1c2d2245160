-- How what a failover left absent or in doubt came to its end.

SET LOCAL ROLE relight_owner;

ALTER TABLE failover_events
ADD COLUMN closing jsonb;
COMMENT ON COLUMN failover_events.phase IS
'draining (graceful), switching (forced), completed, aborted, returned (failback); declared, overridden (rules are'
' suspended), override_ended; receipt_closed (moves no traffic).';
COMMENT ON COLUMN failover_events.receipt IS
'Where the receipt lies in the content store: sha256, size_bytes; when receipt_closed, the final one.';
COMMENT ON COLUMN failover_events.closing IS
'Of a closed receipt: how (returned, gone), events recovered, lost and in doubt, and whether more may be.';

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
            WHERE a.attrelid = 'failover_events'::regclass AND a.attname IN ('phase', 'receipt', 'closing')
        LOOP
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', part, said.name, said.comment);
        END LOOP;
    END LOOP;
END
$$;

-- The rows that are there satisfy the wider rule already; the projector alone waits while they are read.
ALTER TABLE failover_events
-- squawk-ignore ban-drop-constraint
DROP CONSTRAINT failover_events_phase_check,
-- squawk-ignore constraint-missing-not-valid
ADD CONSTRAINT failover_events_phase_check
CHECK (
    phase IN (
        'draining', 'switching', 'completed', 'aborted', 'returned', 'declared', 'overridden', 'override_ended',
        'receipt_closed'
    )
);
