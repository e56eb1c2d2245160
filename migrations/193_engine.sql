-- The engine's own: roles, protection of projected tables, positions, heads, gaps, dead letters.

-- relight_owner owns the tables, relight_projector writes them, relight_reader sees its tenant's rows and the
-- platform's ('-'), relight_operator sees these too, all tenants' when its tenant is '-', and the engine's own tables.
DO $$
DECLARE
    -- From PostgreSQL 16 on, who creates a role may grant it but not SET ROLE to it, and a grant can be one that only
    -- SET ROLE uses: a login that forgets SET ROLE then reads nothing.
    pg16 boolean := current_setting('server_version_num')::int >= 160000;
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['relight_owner', 'relight_projector', 'relight_reader', 'relight_operator'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- roles belong to the whole cluster: another database's migration made it just now
            END;
        END IF;
        IF NOT pg_has_role(current_user, role_name, CASE WHEN pg16 THEN 'SET' ELSE 'MEMBER' END) THEN
            EXECUTE format(
                'GRANT %I TO %I %s', role_name, current_user, CASE WHEN pg16 THEN 'WITH INHERIT FALSE, SET TRUE' END
            );
        END IF;
    END LOOP;
    EXECUTE format('GRANT CREATE, USAGE ON SCHEMA %I TO relight_owner', current_schema());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO relight_projector, relight_reader, relight_operator', current_schema());
END
$$;

SET LOCAL ROLE relight_owner;

CREATE PROCEDURE relight_protect(projected regclass)
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', projected);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', projected);
    EXECUTE format('REVOKE ALL ON TABLE %s FROM PUBLIC', projected);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON TABLE %s TO relight_projector', projected);
    EXECUTE format('GRANT SELECT ON TABLE %s TO relight_reader, relight_operator', projected);
    EXECUTE format(
        'CREATE POLICY projector_writes ON %s TO relight_projector USING (true) WITH CHECK (true)', projected
    );
    -- All of it can be an index condition; a second condition beside IN would be evaluated for every row.
    EXECUTE format(
        'CREATE POLICY tenant_reads ON %s FOR SELECT TO relight_reader, relight_operator USING (
            tenant IN (
                nullif(current_setting(''relight.tenant'', true), ''''),
                CASE WHEN current_setting(''relight.tenant'', true) <> '''' THEN ''-'' END
            )
        )', projected
    );
    EXECUTE format(
        'CREATE POLICY platform_operator_reads ON %s FOR SELECT TO relight_operator USING (
            current_setting(''relight.tenant'', true) = ''-''
        )', projected
    );
END
$$;
REVOKE ALL ON PROCEDURE relight_protect FROM PUBLIC;
COMMENT ON PROCEDURE relight_protect IS
'Puts a projected table under forced row-level security: nobody, not even its owner, sees another tenant''s rows.';

CREATE TABLE projection_positions (
    projector text PRIMARY KEY,
    incarnation bigint NOT NULL CHECK (incarnation >= 1),
    seq bigint NOT NULL CHECK (seq >= 0),
    sha256 text NOT NULL,
    moved_at timestamptz NOT NULL
);
COMMENT ON TABLE projection_positions IS 'How far the stream is folded into the tables; moved by compare-and-set.';
COMMENT ON COLUMN projection_positions.projector IS 'Whose position it is; one projector folds all projections.';
COMMENT ON COLUMN projection_positions.incarnation IS 'Counts how often the stream was found rewound, from 1.';
COMMENT ON COLUMN projection_positions.seq IS 'Stream sequence of the last message folded; 0: none yet.';
COMMENT ON COLUMN projection_positions.sha256 IS 'SHA-256 of that message (subject, NUL, body), to notice a rewind.';
COMMENT ON COLUMN projection_positions.moved_at IS 'When it moved last, by the database''s clock.';

CREATE TABLE projection_anchors (
    projector text NOT NULL,
    level bigint NOT NULL CHECK (level BETWEEN 0 AND 62),
    older boolean NOT NULL,
    seq bigint NOT NULL CHECK (seq >= 1),
    sha256 text NOT NULL,
    PRIMARY KEY (projector, level, older)
);
COMMENT ON TABLE projection_anchors IS
'Earlier positions, ever sparser: where to read again from when the stream was rewound.';
COMMENT ON COLUMN projection_anchors.projector IS 'Whose position it was.';
COMMENT ON COLUMN projection_anchors.level IS 'Anchors of level n are at least 2^n sequences apart.';
COMMENT ON COLUMN projection_anchors.older IS 'Of the two that each level keeps, the older one.';
COMMENT ON COLUMN projection_anchors.seq IS 'Stream sequence of the anchor.';
COMMENT ON COLUMN projection_anchors.sha256 IS 'SHA-256 of the message there (subject, NUL, body).';

CREATE TABLE publisher_heads (
    publisher text PRIMARY KEY,
    highest_pseq bigint NOT NULL CHECK (highest_pseq >= 0),
    highest_sha256 text NOT NULL,
    contiguous_pseq bigint NOT NULL CHECK (contiguous_pseq BETWEEN 0 AND highest_pseq),
    session text NOT NULL CHECK (session IN ('open', 'closed', 'unknown')),
    refused_events bigint NOT NULL CHECK (refused_events >= 0),
    broken_links bigint NOT NULL CHECK (broken_links >= 0),
    seen_at timestamptz NOT NULL
);
COMMENT ON TABLE publisher_heads IS 'For every publisher the highest of its numbers seen on the stream.';
COMMENT ON COLUMN publisher_heads.publisher IS 'The publisher''s durable identity; of control events, their subject.';
COMMENT ON COLUMN publisher_heads.highest_pseq IS 'Highest number seen.';
COMMENT ON COLUMN publisher_heads.highest_sha256 IS 'SHA-256 of that event''s bytes; the next one''s prev.';
COMMENT ON COLUMN publisher_heads.contiguous_pseq IS 'Every number up to it has been seen.';
COMMENT ON COLUMN publisher_heads.session IS 'open: its tail is in doubt until it says closed.';
COMMENT ON COLUMN publisher_heads.refused_events IS 'Events that it says it refused for want of space, never numbered.';
COMMENT ON COLUMN publisher_heads.broken_links IS 'Events whose prev was not the hash of the one before: a fork.';
COMMENT ON COLUMN publisher_heads.seen_at IS 'Stream timestamp of the latest event seen.';

CREATE TABLE publisher_gaps (
    publisher text NOT NULL,
    first_pseq bigint NOT NULL CHECK (first_pseq >= 1),
    last_pseq bigint NOT NULL CHECK (last_pseq >= first_pseq),
    noticed_at timestamptz NOT NULL,
    PRIMARY KEY (publisher, first_pseq)
);
COMMENT ON TABLE publisher_gaps IS 'Numbers that a publisher used and that have not been seen on the stream.';
COMMENT ON COLUMN publisher_gaps.publisher IS 'The publisher''s identity.';
COMMENT ON COLUMN publisher_gaps.first_pseq IS 'First missing number.';
COMMENT ON COLUMN publisher_gaps.last_pseq IS 'Last missing number.';
COMMENT ON COLUMN publisher_gaps.noticed_at IS 'Stream timestamp of the event that showed the gap.';

CREATE TABLE dead_letters (
    projection text NOT NULL,
    seq bigint NOT NULL CHECK (seq >= 1),
    sha256 text NOT NULL,
    subject text NOT NULL,
    body bytea NOT NULL,
    stream_timestamp timestamptz NOT NULL,
    reason text NOT NULL CHECK (
        reason IN (
            'not_an_event', 'unknown_type', 'future_version', 'invalid', 'subject_mismatch', 'clock_ahead',
            'projection_failed', 'store_refused'
        )
    ),
    detail text NOT NULL,
    event_id text,
    publisher text,
    pseq bigint,
    resolved_at timestamptz,
    PRIMARY KEY (projection, seq, sha256)
);
CREATE INDEX dead_letters_open ON dead_letters (seq) WHERE resolved_at IS NULL;
CREATE INDEX dead_letters_publisher ON dead_letters (publisher, pseq) WHERE resolved_at IS NULL;
COMMENT ON TABLE dead_letters IS 'Messages that could not be folded: kept whole, counted, and retried on demand.';
COMMENT ON COLUMN dead_letters.projection IS 'Which projection refused it; - where it is no event that one could fold.';
COMMENT ON COLUMN dead_letters.seq IS 'Stream sequence of the message.';
COMMENT ON COLUMN dead_letters.sha256 IS 'SHA-256 of the message (subject, NUL, body).';
COMMENT ON COLUMN dead_letters.subject IS 'Subject on which it stands.';
COMMENT ON COLUMN dead_letters.body IS 'Its exact bytes.';
COMMENT ON COLUMN dead_letters.stream_timestamp IS 'When the stream took it.';
COMMENT ON COLUMN dead_letters.reason IS 'What kind of fault.';
COMMENT ON COLUMN dead_letters.detail IS 'What exactly, naming the field.';
COMMENT ON COLUMN dead_letters.event_id IS 'The event''s id where the envelope could be read.';
COMMENT ON COLUMN dead_letters.publisher IS 'Its publisher where the envelope could be read.';
COMMENT ON COLUMN dead_letters.pseq IS 'Its number there.';
COMMENT ON COLUMN dead_letters.resolved_at IS 'When a retry folded it after all.';

GRANT SELECT, INSERT, UPDATE, DELETE ON
projection_positions, projection_anchors, publisher_heads, publisher_gaps, dead_letters
TO relight_projector;
GRANT SELECT ON
projection_positions, projection_anchors, publisher_heads, publisher_gaps, dead_letters
TO relight_operator;
GRANT SELECT (projector, incarnation, seq, moved_at) ON projection_positions TO relight_reader;
