-- What single observers hear of a fault domain stands in the history beside the rulings, and what these rest on.

SET LOCAL ROLE relight_owner;

-- The rows that are there satisfy the wider rule already; the projector alone waits while they are read.
ALTER TABLE fault_isolation_events
-- squawk-ignore ban-drop-constraint
DROP CONSTRAINT fault_isolation_events_event_type_check,
-- squawk-ignore constraint-missing-not-valid
ADD CONSTRAINT fault_isolation_events_event_type_check
CHECK (event_type IN ('suspected', 'trusted', 'detected', 'isolated', 'recovering', 'recovered')),
ADD COLUMN observer text,
ADD COLUMN observer_region text,
ADD COLUMN phi double precision,
ADD COLUMN silent_ms bigint,
ADD COLUMN voters text [],
ADD COLUMN voter_regions text [];

COMMENT ON COLUMN fault_isolation_events.observer IS 'Of a vote: who observed it.';
COMMENT ON COLUMN fault_isolation_events.observer_region IS 'Of a vote: where it was observed.';
COMMENT ON COLUMN fault_isolation_events.phi IS
'How sure it was that the domain''s heartbeats had ended: minus the decimal logarithm of the chance that one came yet.';
COMMENT ON COLUMN fault_isolation_events.silent_ms IS 'Of a vote: milliseconds without a heartbeat.';
COMMENT ON COLUMN fault_isolation_events.voters IS 'Of a ruling: the observers whose votes it rests on.';
COMMENT ON COLUMN fault_isolation_events.voter_regions IS 'Of a ruling: the regions of these observers.';

-- Of the months that are there, too; later ones have them from their table.
DO $$
DECLARE
    part text;
    said record;
BEGIN
    FOR part IN SELECT partition::text FROM relight_partitions('fault_isolation_events') LOOP
        FOR said IN
            SELECT a.attname AS name, col_description(a.attrelid, a.attnum) AS comment
            FROM pg_attribute AS a
            WHERE a.attrelid = 'fault_isolation_events'::regclass
                AND a.attname IN ('observer', 'observer_region', 'phi', 'silent_ms', 'voters', 'voter_regions')
        LOOP
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', part, said.name, said.comment);
        END LOOP;
    END LOOP;
END
$$;

-- A migration is one transaction. Only the projector waits meanwhile: reads go on, and recording does not need the table.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX fault_isolation_events_votes ON fault_isolation_events
(tenant, domain_type, domain_identifier, event_id) WHERE event_type IN ('suspected', 'trusted');
