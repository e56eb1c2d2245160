-- Numbers that were missing on the stream when it was looked through last, and when and how that was.

SET LOCAL ROLE relight_owner;

CREATE TABLE stream_losses (
    publisher text NOT NULL,
    first_pseq bigint NOT NULL CHECK (first_pseq >= 1),
    last_pseq bigint NOT NULL CHECK (last_pseq >= first_pseq),
    noticed_at timestamptz NOT NULL,
    asked bigint NOT NULL CHECK (asked >= 0),
    from_archive boolean NOT NULL,
    lost boolean NOT NULL,
    PRIMARY KEY (publisher, first_pseq)
);
COMMENT ON TABLE stream_losses IS 'Numbers that are used and do not stand on the stream: late, or lost; healed ones go.';
COMMENT ON COLUMN stream_losses.publisher IS 'The publisher''s identity; of control events, their subject.';
COMMENT ON COLUMN stream_losses.first_pseq IS 'First missing number.';
COMMENT ON COLUMN stream_losses.last_pseq IS 'Last missing number.';
COMMENT ON COLUMN stream_losses.noticed_at IS 'When it was noticed, by the database''s clock.';
COMMENT ON COLUMN stream_losses.asked IS 'How often all recorders, and the archive where there is one, were asked for it.';
COMMENT ON COLUMN stream_losses.from_archive IS 'The archive has it, and is publishing it again.';
COMMENT ON COLUMN stream_losses.lost IS 'All places were asked, again and again, and nobody has it.';

CREATE TABLE stream_audits (
    projector text PRIMARY KEY,
    audited_at timestamptz NOT NULL,
    server text NOT NULL,
    first_seq bigint NOT NULL CHECK (first_seq >= 0),
    last_seq bigint NOT NULL CHECK (last_seq >= 0),
    deleted_messages bigint NOT NULL CHECK (deleted_messages >= 0),
    lost_bytes bigint NOT NULL CHECK (lost_bytes >= 0),
    incarnation bigint NOT NULL CHECK (incarnation >= 1)
);
COMMENT ON TABLE stream_audits IS 'How the stream was when it was looked through last: a difference is a reason to do so.';
COMMENT ON COLUMN stream_audits.projector IS 'Whose heads it was compared with.';
COMMENT ON COLUMN stream_audits.audited_at IS 'When, by the database''s clock.';
COMMENT ON COLUMN stream_audits.server IS 'Id of the NATS server that was asked; it has another after a restart.';
COMMENT ON COLUMN stream_audits.first_seq IS 'First sequence of the stream.';
COMMENT ON COLUMN stream_audits.last_seq IS 'Last sequence of the stream.';
COMMENT ON COLUMN stream_audits.deleted_messages IS 'Messages that the server says were deleted in between.';
COMMENT ON COLUMN stream_audits.lost_bytes IS 'What the server says it lost of its store.';
COMMENT ON COLUMN stream_audits.incarnation IS 'Rewinds of the stream that the projector had noticed, from 1.';

GRANT SELECT, INSERT, UPDATE, DELETE ON stream_losses, stream_audits TO relight_projector;
GRANT SELECT ON stream_losses, stream_audits TO relight_operator;
