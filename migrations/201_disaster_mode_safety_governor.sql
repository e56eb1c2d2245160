-- The safety governor: how much of each fleet is switched off, and how that changed.

SET LOCAL ROLE relight_owner;

CREATE TABLE disaster_mode_states (
    tenant text NOT NULL,
    fleet text NOT NULL,
    mode_level text CHECK (mode_level IN ('normal', 'degraded', 'minimal', 'emergency')),
    region text,
    trigger_reason text,
    disabled_features text[],
    ordered_by text,
    activated_at timestamptz,
    level_at timestamptz,
    deactivated_at timestamptz,
    mode_rev bigint,
    mode_event_id uuid,
    PRIMARY KEY (tenant, fleet)
);
CREATE INDEX disaster_mode_states_raised ON disaster_mode_states (tenant, activated_at DESC)
WHERE mode_level IN ('degraded', 'minimal', 'emergency');
COMMENT ON TABLE disaster_mode_states IS 'Each fleet''s mode.';
COMMENT ON COLUMN disaster_mode_states.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN disaster_mode_states.fleet IS 'The fleet.';
COMMENT ON COLUMN disaster_mode_states.mode_level IS 'normal, or one of three levels at which ever more is off.';
COMMENT ON COLUMN disaster_mode_states.region IS 'Where the ruling was made.';
COMMENT ON COLUMN disaster_mode_states.trigger_reason IS 'Why the mode is what it is.';
COMMENT ON COLUMN disaster_mode_states.disabled_features IS 'What is switched off.';
COMMENT ON COLUMN disaster_mode_states.ordered_by IS 'The operator, where a person ruled.';
COMMENT ON COLUMN disaster_mode_states.activated_at IS 'When it left normal, the last time.';
COMMENT ON COLUMN disaster_mode_states.level_at IS 'Since when it has this level.';
COMMENT ON COLUMN disaster_mode_states.deactivated_at IS 'When it was normal again; null while it is not.';
COMMENT ON COLUMN disaster_mode_states.mode_rev IS 'Revision of the mode.';
COMMENT ON COLUMN disaster_mode_states.mode_event_id IS 'The event that ruled.';
CALL relight_protect('disaster_mode_states');

CREATE TABLE disaster_mode_events (
    tenant text NOT NULL,
    event_id uuid NOT NULL,
    region text NOT NULL,
    occurred_at timestamptz NOT NULL,
    fleet text NOT NULL,
    event_type text NOT NULL CHECK (event_type IN ('activated', 'escalated', 'deescalated', 'deactivated')),
    from_level text NOT NULL CHECK (from_level IN ('normal', 'degraded', 'minimal', 'emergency')),
    mode_level text NOT NULL CHECK (mode_level IN ('normal', 'degraded', 'minimal', 'emergency')),
    trigger_reason text NOT NULL,
    ordered_by text,
    details jsonb NOT NULL,
    PRIMARY KEY (tenant, event_id)
);
CREATE INDEX disaster_mode_events_fleet ON disaster_mode_events (tenant, fleet, event_id);
COMMENT ON TABLE disaster_mode_events IS 'Every change of every fleet''s mode.';
COMMENT ON COLUMN disaster_mode_events.tenant IS 'Whose it is; - is the platform''s.';
COMMENT ON COLUMN disaster_mode_events.event_id IS 'The event.';
COMMENT ON COLUMN disaster_mode_events.region IS 'Where the ruling was made.';
COMMENT ON COLUMN disaster_mode_events.occurred_at IS 'When it happened.';
COMMENT ON COLUMN disaster_mode_events.fleet IS 'The fleet.';
COMMENT ON COLUMN disaster_mode_events.event_type IS 'What was ruled.';
COMMENT ON COLUMN disaster_mode_events.from_level IS 'The level before.';
COMMENT ON COLUMN disaster_mode_events.mode_level IS 'The level from here on.';
COMMENT ON COLUMN disaster_mode_events.trigger_reason IS 'Why it was ruled.';
COMMENT ON COLUMN disaster_mode_events.ordered_by IS 'The operator, where a person ruled.';
COMMENT ON COLUMN disaster_mode_events.details IS
'signals: the measurements that led to it; disabled_features: all that are off.';
CALL relight_protect('disaster_mode_events');
