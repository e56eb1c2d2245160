-- The recording's own record: what was lost, healed, trimmed and erased, and how far which archive has sealed it.

SET LOCAL ROLE relight_owner;

CREATE TABLE recorded_losses (
    said_by text NOT NULL,
    said_pseq bigint NOT NULL,
    publisher text NOT NULL,
    first_pseq bigint NOT NULL CHECK (first_pseq >= 1),
    last_pseq bigint NOT NULL CHECK (last_pseq >= first_pseq),
    decided_by text NOT NULL,
    reason text NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (said_by, said_pseq)
);
CREATE INDEX recorded_losses_publisher ON recorded_losses (publisher, first_pseq);
COMMENT ON TABLE recorded_losses IS 'Numbers of which somebody decided that they will not come: recorder.lost.';
COMMENT ON COLUMN recorded_losses.said_by IS 'Publisher of the event that says so.';
COMMENT ON COLUMN recorded_losses.said_pseq IS 'Its number there.';
COMMENT ON COLUMN recorded_losses.publisher IS 'Whose numbers are lost.';
COMMENT ON COLUMN recorded_losses.first_pseq IS 'First lost number.';
COMMENT ON COLUMN recorded_losses.last_pseq IS 'Last lost number.';
COMMENT ON COLUMN recorded_losses.decided_by IS 'Who decided it.';
COMMENT ON COLUMN recorded_losses.reason IS 'Why.';
COMMENT ON COLUMN recorded_losses.recorded_at IS 'Stream timestamp of the event that says so.';

CREATE TABLE recorded_heals (
    said_by text NOT NULL,
    said_pseq bigint NOT NULL,
    publisher text NOT NULL,
    first_pseq bigint NOT NULL CHECK (first_pseq >= 1),
    last_pseq bigint NOT NULL CHECK (last_pseq >= first_pseq),
    source text NOT NULL CHECK (source IN ('spool', 'archive')),
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (said_by, said_pseq)
);
COMMENT ON TABLE recorded_heals IS 'Numbers that were missing on the stream and were published again: recorder.healed.';
COMMENT ON COLUMN recorded_heals.said_by IS 'Publisher of the event that says so.';
COMMENT ON COLUMN recorded_heals.said_pseq IS 'Its number there.';
COMMENT ON COLUMN recorded_heals.publisher IS 'Whose numbers were healed.';
COMMENT ON COLUMN recorded_heals.first_pseq IS 'First healed number.';
COMMENT ON COLUMN recorded_heals.last_pseq IS 'Last healed number.';
COMMENT ON COLUMN recorded_heals.source IS 'Where their bytes came from.';
COMMENT ON COLUMN recorded_heals.recorded_at IS 'Stream timestamp of the event that says so.';

CREATE TABLE stream_trims (
    said_by text NOT NULL,
    said_pseq bigint NOT NULL,
    archive text NOT NULL,
    through_seq bigint NOT NULL CHECK (through_seq >= 1),
    decided_by text NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (said_by, said_pseq)
);
COMMENT ON TABLE stream_trims IS 'Up to where the stream was trimmed on purpose: recorder.trimmed.';
COMMENT ON COLUMN stream_trims.said_by IS 'Publisher of the event that says so.';
COMMENT ON COLUMN stream_trims.said_pseq IS 'Its number there.';
COMMENT ON COLUMN stream_trims.archive IS 'The archive that holds what was trimmed.';
COMMENT ON COLUMN stream_trims.through_seq IS 'Observations up to this stream sequence may be gone.';
COMMENT ON COLUMN stream_trims.decided_by IS 'Who decided it.';
COMMENT ON COLUMN stream_trims.recorded_at IS 'Stream timestamp of the event that says so.';

CREATE TABLE content_erasures (
    tenant text NOT NULL,
    sha256 text NOT NULL,
    erasure text NOT NULL,
    scope text NOT NULL,
    decided_by text NOT NULL,
    reason text NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, sha256, erasure)
);
COMMENT ON TABLE content_erasures IS 'Content that was deleted on demand: recorder.erased.';
COMMENT ON COLUMN content_erasures.tenant IS 'Whose content.';
COMMENT ON COLUMN content_erasures.sha256 IS 'Digest of what was erased.';
COMMENT ON COLUMN content_erasures.erasure IS 'Which demand.';
COMMENT ON COLUMN content_erasures.scope IS 'What was demanded.';
COMMENT ON COLUMN content_erasures.decided_by IS 'Who decided it.';
COMMENT ON COLUMN content_erasures.reason IS 'Why.';
COMMENT ON COLUMN content_erasures.recorded_at IS 'Stream timestamp of the event that says so.';

CREATE TABLE archives (
    archive text PRIMARY KEY,
    place text NOT NULL,
    segment bigint NOT NULL CHECK (segment >= 1),
    manifest_sha256 text NOT NULL,
    incarnation bigint NOT NULL CHECK (incarnation >= 1),
    last_seq bigint NOT NULL CHECK (last_seq >= 0),
    last_sha256 text NOT NULL,
    key_id text NOT NULL,
    sealed_at timestamptz NOT NULL
);
COMMENT ON TABLE archives IS 'Every archive of the stream and its last sealed segment: exposes one that was cut short.';
COMMENT ON COLUMN archives.archive IS 'Its identity.';
COMMENT ON COLUMN archives.place IS 'Where it lies: a folder or bucket, as its archiver was told.';
COMMENT ON COLUMN archives.segment IS 'Number of its last sealed segment.';
COMMENT ON COLUMN archives.manifest_sha256 IS 'SHA-256 of that segment''s manifest, which covers all before it.';
COMMENT ON COLUMN archives.incarnation IS 'Counts the rewinds of the stream that the archiver noticed, from 1.';
COMMENT ON COLUMN archives.last_seq IS 'Stream sequence of its last message.';
COMMENT ON COLUMN archives.last_sha256 IS 'SHA-256 of that message (subject, NUL, body).';
COMMENT ON COLUMN archives.key_id IS 'Which key signed it.';
COMMENT ON COLUMN archives.sealed_at IS 'When it was sealed, by the archiver''s clock.';

CREATE TABLE sealed_heads (
    archive text NOT NULL,
    publisher text NOT NULL,
    pseq bigint NOT NULL CHECK (pseq >= 1),
    sha256 text NOT NULL,
    PRIMARY KEY (publisher, archive)
);
COMMENT ON TABLE sealed_heads IS 'For every publisher the number up to which an archive holds an unbroken chain.';
COMMENT ON COLUMN sealed_heads.archive IS 'The archive''s identity.';
COMMENT ON COLUMN sealed_heads.publisher IS 'The publisher''s identity.';
COMMENT ON COLUMN sealed_heads.pseq IS 'All numbers up to it are sealed, and each says the hash of the one before.';
COMMENT ON COLUMN sealed_heads.sha256 IS 'SHA-256 of that event''s bytes.';

GRANT SELECT, INSERT, UPDATE, DELETE ON
recorded_losses, recorded_heals, stream_trims, content_erasures, archives, sealed_heads
TO relight_projector;
GRANT SELECT ON
recorded_losses, recorded_heals, stream_trims, content_erasures, archives, sealed_heads
TO relight_operator;
