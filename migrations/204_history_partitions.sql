-- History tables partitioned by month, sets of tables that a rebuild swaps, what retention has trimmed.

-- A rebuild makes its tables in <schema>_shadow, and keeps those that it replaced in <schema>_previous. Nobody who reads
-- may use either: what stands there is not the truth.
DO $$
DECLARE
    live text := current_schema();
    suffix text;
BEGIN
    FOREACH suffix IN ARRAY ARRAY['_shadow', '_previous'] LOOP
        EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION relight_owner', live || suffix);
    END LOOP;
END
$$;

SET LOCAL ROLE relight_owner;

DO $$
DECLARE
    live text := current_schema();
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I, %I TO relight_projector', live || '_shadow', live || '_previous');
END
$$;

-- First of all: a projector of the release before waits here from now on, before it has touched any history table.
ALTER TABLE projection_positions ADD COLUMN generation bigint NOT NULL DEFAULT 1;
COMMENT ON COLUMN projection_positions.generation IS
'Counts how often tables were swapped for rebuilt ones, from 1: equal positions of two generations may differ.';
GRANT SELECT (generation) ON projection_positions TO relight_reader;

CREATE TABLE projection_versions (
    projection text PRIMARY KEY,
    version bigint NOT NULL CHECK (version >= 1)
);
COMMENT ON TABLE projection_versions IS
'With which version of each projection its tables were folded from the beginning; 1 where nothing stands here.';
COMMENT ON COLUMN projection_versions.projection IS 'The projection.';
COMMENT ON COLUMN projection_versions.version IS 'Its version then; later events may be folded by a newer one.';
GRANT SELECT, INSERT, UPDATE ON projection_versions TO relight_projector;
GRANT SELECT ON projection_versions TO relight_operator;

CREATE TABLE retired_tables (
    table_name text PRIMARY KEY,
    projection text NOT NULL,
    version bigint NOT NULL CHECK (version >= 1),
    seq bigint NOT NULL CHECK (seq >= 0),
    sha256 text NOT NULL,
    retired_at timestamptz NOT NULL
);
COMMENT ON TABLE retired_tables IS 'The tables that the latest rebuild replaced, kept until the next one.';
COMMENT ON COLUMN retired_tables.table_name IS 'The table, in the schema of the previous set.';
COMMENT ON COLUMN retired_tables.projection IS 'Whose table it is.';
COMMENT ON COLUMN retired_tables.version IS 'With which version of it the table was folded from the beginning.';
COMMENT ON COLUMN retired_tables.seq IS 'Stream sequence of the last message folded into it.';
COMMENT ON COLUMN retired_tables.sha256 IS 'SHA-256 of that message (subject, NUL, body).';
COMMENT ON COLUMN retired_tables.retired_at IS 'When it was replaced.';
GRANT SELECT ON retired_tables TO relight_projector, relight_operator;

CREATE TABLE retention_marks (
    table_name text NOT NULL,
    tenant text NOT NULL,
    below uuid NOT NULL,
    trimmed_rows bigint NOT NULL CHECK (trimmed_rows >= 0),
    trimmed_by text NOT NULL,
    trimmed_at timestamptz NOT NULL,
    PRIMARY KEY (table_name, tenant, below)
);
COMMENT ON TABLE retention_marks IS 'What retention has trimmed: a rebuild does not bring it back.';
COMMENT ON COLUMN retention_marks.table_name IS 'The history table.';
COMMENT ON COLUMN retention_marks.tenant IS 'Whose rows.';
COMMENT ON COLUMN retention_marks.below IS 'Rows of events with lower ids were trimmed, where the stream held their event.';
COMMENT ON COLUMN retention_marks.trimmed_rows IS 'How many.';
COMMENT ON COLUMN retention_marks.trimmed_by IS 'The login that did it.';
COMMENT ON COLUMN retention_marks.trimmed_at IS 'When it did it last.';
GRANT SELECT ON retention_marks TO relight_projector, relight_operator;

CREATE FUNCTION relight_time_of(event_id uuid) RETURNS timestamp
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN timestamp '1970-01-01'
    + interval '1 ms' * ('x' || lpad(left(replace(event_id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint;
COMMENT ON FUNCTION relight_time_of IS 'The moment in a UUIDv7, in UTC.';

CREATE FUNCTION relight_first_id(moment timestamp) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (lpad(to_hex((extract(EPOCH FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
COMMENT ON FUNCTION relight_first_id IS 'The lowest id that an event of this moment (UTC) can have.';

CREATE FUNCTION relight_partitions(history regclass) RETURNS TABLE (partition regclass, low uuid, high uuid)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT
        c.oid::regclass,
        substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \(''([0-9a-f-]+)''\)')::uuid,
        substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([0-9a-f-]+)''\)')::uuid
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = history
    ORDER BY 2 NULLS FIRST;
END;
COMMENT ON FUNCTION relight_partitions IS
'The partitions of a history table, each from its lowest id (null: any) to below its highest.';

CREATE FUNCTION relight_add_partitions(history regclass, event_ids uuid[]) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    home text;
    base text;
    month timestamp;
    made text;
    count bigint := 0;
BEGIN
    SELECT n.nspname, c.relname INTO STRICT home, base
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = history;
    FOR turn IN 1..2 LOOP
        FOR month IN
            SELECT DISTINCT date_trunc('month', relight_time_of(id))
            FROM unnest(event_ids) AS id
            WHERE NOT EXISTS (
                SELECT FROM relight_partitions(history) AS p WHERE id < p.high AND (p.low IS NULL OR id >= p.low)
            )
            ORDER BY 1
        LOOP
            -- What others added meanwhile is seen only once they are waited for; and by name, for a rebuild may have
            -- put another table in this one's place. Attaching takes the same lock: reads and writes go on.
            IF turn = 1 THEN
                EXECUTE format('LOCK TABLE %I.%I IN SHARE UPDATE EXCLUSIVE MODE', home, base);
                history := format('%I.%I', home, base)::regclass;
                EXIT;
            END IF;
            made := format('%I.%I', home, base || to_char(month, '_YYYY_MM'));
            EXECUTE format('CREATE TABLE %s (LIKE %I.%I INCLUDING ALL EXCLUDING INDEXES)', made, home, base);
            CALL relight_close(made);
            EXECUTE format(
                'COMMENT ON TABLE %s IS %L', made, format('%s of the events of %s.', base, to_char(month, 'YYYY-MM'))
            );
            EXECUTE format(
                'ALTER TABLE %I.%I ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
                home, base, made, relight_first_id(month), relight_first_id(month + interval '1 month')
            );
            count := count + 1;
        END LOOP;
    END LOOP;
    RETURN count;
END
$$;
REVOKE ALL ON FUNCTION relight_add_partitions FROM PUBLIC;
COMMENT ON FUNCTION relight_add_partitions IS 'Makes the monthly partitions that these events need and that are not there.';

CREATE PROCEDURE relight_close(partition regclass)
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', partition);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', partition);
    EXECUTE format(
        'REVOKE ALL ON TABLE %s FROM PUBLIC, relight_projector, relight_reader, relight_operator', partition
    );
END
$$;
REVOKE ALL ON PROCEDURE relight_close FROM PUBLIC;
COMMENT ON PROCEDURE relight_close IS
'Closes a partition to all, its owner included: without a policy it shows no row, except through its table.';

CREATE FUNCTION relight_ensure_partitions(history text, event_ids uuid[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    known regclass;
BEGIN
    SELECT c.oid INTO known FROM pg_class AS c
    WHERE c.oid = to_regclass(quote_ident(history)) AND c.relkind = 'p' AND c.relowner = 'relight_owner'::regrole;
    IF known IS NULL THEN
        RAISE undefined_table USING MESSAGE = format('%s is no history table', history);
    END IF;
    RETURN relight_add_partitions(known, event_ids);
END
$$;
DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION relight_ensure_partitions SET search_path = pg_catalog, %I, pg_temp', current_schema()
    );
END
$$;
REVOKE ALL ON FUNCTION relight_ensure_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relight_ensure_partitions TO relight_projector;
COMMENT ON FUNCTION relight_ensure_partitions IS
'As relight_add_partitions, for the projector, which may make nothing else; of the history tables alone.';

CREATE PROCEDURE relight_protect_history(history regclass)
LANGUAGE plpgsql
AS $$
DECLARE
    command text;
BEGIN
    CALL relight_protect(history);
    -- Retention deletes as the owner: it sees the one tenant that it names, and only to delete.
    FOREACH command IN ARRAY ARRAY['SELECT', 'DELETE'] LOOP
        EXECUTE format(
            'CREATE POLICY %I ON %s FOR %s TO relight_owner USING (
                tenant = nullif(current_setting(''relight.trimming'', true), '''')
            )', 'retention_' || lower(command) || 's', history, command
        );
    END LOOP;
END
$$;
REVOKE ALL ON PROCEDURE relight_protect_history FROM PUBLIC;
COMMENT ON PROCEDURE relight_protect_history IS 'As relight_protect; and retention may trim one tenant at a time.';

-- Whoever creates a history table calls this after its indexes, in place of relight_protect.
CREATE PROCEDURE relight_begin_history(history regclass, first_partition text, below uuid)
LANGUAGE plpgsql
AS $$
DECLARE
    today timestamp := now() AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(first_partition) IS NULL THEN
        EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING INDEXES)', first_partition, history);
    END IF;
    CALL relight_protect_history(history);
    CALL relight_close(first_partition);
    EXECUTE format('COMMENT ON TABLE %s IS %L', first_partition, 'The events before the first month.');
    EXECUTE format(
        'ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (MINVALUE) TO (%L)', history, first_partition, below
    );
    -- Ahead, for a projector of the release before, which makes none.
    PERFORM relight_add_partitions(
        history, (SELECT array_agg(relight_first_id(today + n * interval '1 month')) FROM generate_series(0, 1) AS n)
    );
END
$$;
REVOKE ALL ON PROCEDURE relight_begin_history FROM PUBLIC;
COMMENT ON PROCEDURE relight_begin_history IS
'Protects a history table and gives it its first partition, for all ids below that one, and those of this month and the next.';

-- Each becomes the first partition of a table of its name: no row is copied. Of a database that was in use this one
-- reaches to the present, so that a projector of the release before finds a place for late events too.
DO $$
DECLARE
    today timestamp := now() AT TIME ZONE 'UTC';
    in_use boolean := EXISTS (SELECT FROM projection_positions WHERE seq > 0);
    history text;
    first_partition text;
    latest uuid;
    below timestamp;
    comment text;
    names text[];
    definitions text[];
    definition text;
    name text;
BEGIN
    FOREACH history IN ARRAY ARRAY[
        'circuit_breaker_events', 'crisis_recovery_logs', 'decision_audit_logs', 'disaster_mode_events',
        'failover_events', 'fault_isolation_events', 'intelligence_replication_logs', 'queue_federation_events',
        'reliability_test_results', 'task_migration_history'
    ] LOOP
        first_partition := history || '_first';
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', history);
        EXECUTE format('ALTER TABLE %I NO FORCE ROW LEVEL SECURITY', history); -- closed again below
        EXECUTE format('SELECT event_id FROM %I ORDER BY event_id DESC LIMIT 1', history) INTO latest;
        below := greatest(
            timestamp '2020-01-01',
            CASE WHEN in_use THEN date_trunc('month', today) END,
            date_trunc('month', relight_time_of(latest)) + interval '1 month'
        );
        comment := obj_description(history::regclass, 'pg_class');
        EXECUTE format('DROP POLICY projector_writes ON %I', history);
        EXECUTE format('DROP POLICY tenant_reads ON %I', history);
        EXECUTE format('DROP POLICY platform_operator_reads ON %I', history);
        SELECT
            array_agg(c.relname::text),
            coalesce(array_agg(pg_get_indexdef(i.indexrelid)) FILTER (WHERE NOT i.indisprimary), '{}')
        INTO names, definitions
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid WHERE i.indrelid = history::regclass;
        EXECUTE format('ALTER TABLE %I RENAME TO %I', history, first_partition);
        FOREACH name IN ARRAY names LOOP
            EXECUTE format('ALTER INDEX %I RENAME TO %I', name, name || '_first');
        END LOOP;
        EXECUTE format(
            'CREATE TABLE %I (LIKE %I INCLUDING ALL EXCLUDING INDEXES, CONSTRAINT %I PRIMARY KEY (tenant, event_id)) '
            'PARTITION BY RANGE (event_id)', history, first_partition, history || '_pkey'
        );
        FOREACH definition IN ARRAY definitions LOOP
            EXECUTE definition;
        END LOOP;
        EXECUTE format('COMMENT ON TABLE %I IS %L', history, comment);
        CALL relight_begin_history(history, first_partition, relight_first_id(below));
    END LOOP;
END
$$;
