-- Forks by number, and signs of life: whether a publisher that says nothing is quiet, or gone with its tail.

SET LOCAL ROLE relight_owner;

CREATE TABLE publisher_forks (
    publisher text NOT NULL,
    pseq bigint NOT NULL CHECK (pseq >= 1),
    sha256 text NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (publisher, pseq, sha256)
);
COMMENT ON TABLE publisher_forks IS 'Events whose number another event has: of each, those that were seen later.';
COMMENT ON COLUMN publisher_forks.publisher IS 'The publisher''s identity.';
COMMENT ON COLUMN publisher_forks.pseq IS 'The number.';
COMMENT ON COLUMN publisher_forks.sha256 IS 'SHA-256 of the event that was seen later.';
COMMENT ON COLUMN publisher_forks.seen_at IS 'Its stream timestamp.';

ALTER TABLE publisher_heads ADD COLUMN heard_at timestamptz;
COMMENT ON COLUMN publisher_heads.heard_at IS
'When its process was heard of last, by the database''s clock, to about a minute; it asks how far it is projected.';
COMMENT ON COLUMN publisher_heads.broken_links IS 'Events whose prev was not the hash of the one before.';

ALTER TABLE projection_positions ADD COLUMN listens_since timestamptz;
COMMENT ON COLUMN projection_positions.listens_since IS
'Since when the projector at work hears of publishers: what it did not hear before says nothing.';

GRANT SELECT, INSERT, UPDATE, DELETE ON publisher_forks TO relight_projector;
GRANT SELECT ON publisher_forks TO relight_operator;
