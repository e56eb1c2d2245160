-- Bearer tokens of the HTTP API: who may publish, read and operate, for which tenant.

-- relight_gate alone sees and writes them: no reader and no projector can learn a hash, or make itself a token.
DO $$
DECLARE
    pg16 boolean := current_setting('server_version_num')::int >= 160000;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'relight_gate') THEN
        BEGIN
            CREATE ROLE relight_gate NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- roles belong to the whole cluster: another database's migration made it just now
        END;
    END IF;
    IF NOT pg_has_role(current_user, 'relight_gate', CASE WHEN pg16 THEN 'SET' ELSE 'MEMBER' END) THEN
        EXECUTE format(
            'GRANT relight_gate TO %I %s', current_user, CASE WHEN pg16 THEN 'WITH INHERIT FALSE, SET TRUE' END
        );
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO relight_gate', current_schema());
END
$$;

SET LOCAL ROLE relight_owner;

CREATE TABLE api_tokens (
    id text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{16}$'),
    secret_sha256 text NOT NULL CHECK (secret_sha256 ~ '^[0-9a-f]{64}$'),
    role text NOT NULL CHECK (role IN ('publisher', 'reader', 'operator')),
    tenant text NOT NULL CHECK (tenant <> ''),
    tier text NOT NULL CHECK (tier IN ('low', 'standard', 'high')),
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz
);
COMMENT ON TABLE api_tokens IS 'Bearer tokens of the HTTP API; a token is never deleted, so that its id stays known.';
COMMENT ON COLUMN api_tokens.id IS 'The part of the token that may be shown: rlt_<id>_<secret>.';
COMMENT ON COLUMN api_tokens.secret_sha256 IS 'SHA-256 of the whole token; the secret itself is kept nowhere.';
COMMENT ON COLUMN api_tokens.role IS 'publisher: sends events; reader: asks queries; operator: both, and sees more.';
COMMENT ON COLUMN api_tokens.tenant IS 'Whose events and rows; - is the platform''s, whose operator may ask for any.';
COMMENT ON COLUMN api_tokens.tier IS 'How often it may ask.';
COMMENT ON COLUMN api_tokens.name IS 'Who or what uses it, for people.';
COMMENT ON COLUMN api_tokens.created_at IS 'When it was made.';
COMMENT ON COLUMN api_tokens.expires_at IS 'From when on it is refused; null: never.';
COMMENT ON COLUMN api_tokens.revoked_at IS 'Since when it is refused.';
REVOKE ALL ON TABLE api_tokens FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE (revoked_at) ON TABLE api_tokens TO relight_gate;
