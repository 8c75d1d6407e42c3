-- How hosts are: whether one is suspect, how fast it works, and what became of it, state by state.

ALTER TABLE agent_hosts
    ADD COLUMN suspect_since timestamptz,
    ADD COLUMN speed real NOT NULL DEFAULT 1,
    ADD COLUMN state_reason text NOT NULL DEFAULT '',
    ADD COLUMN measured_speed real,
    ADD COLUMN measured_tasks bigint NOT NULL DEFAULT 0,
    ADD COLUMN measured_at timestamptz,
    ADD CONSTRAINT valid_speed CHECK (speed > 0 AND speed <= 1),
    ADD CONSTRAINT valid_measured_speed CHECK (measured_speed > 0 AND measured_speed <= 1);
COMMENT ON COLUMN agent_hosts.suspect_since IS 'silent for longer than it usually is: nothing new goes there; NULL: it is heard';
COMMENT ON COLUMN agent_hosts.speed IS 'what is given to it goes by this: 1 is the speed of most of its type';
COMMENT ON COLUMN agent_hosts.measured_speed IS 'a moving average of what workers have measured, of measured_tasks tasks';
COMMENT ON COLUMN agent_hosts.state_reason IS 'why it is in the state that it is in, where that is known';

CREATE TABLE agent_host_history (
    tenant text COLLATE "C" NOT NULL,
    host_id text COLLATE "C" NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state text NOT NULL,
    speed real NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (tenant, host_id, number),
    FOREIGN KEY (tenant, host_id) REFERENCES agent_hosts (tenant, host_id) ON DELETE CASCADE,
    CONSTRAINT valid_state CHECK (state IN ('healthy', 'suspect', 'gone'))
);
CREATE INDEX idx_host_history_at ON agent_host_history (at);

ALTER TABLE agent_host_history ENABLE ROW LEVEL SECURITY;
ALTER TABLE agent_host_history FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON agent_host_history FOR ALL TO orchestrator_app
    USING (tenant = current_setting('app.tenant', true)) WITH CHECK (tenant = current_setting('app.tenant', true));
CREATE POLICY maintenance ON agent_host_history FOR ALL TO orchestrator_maintenance USING (true) WITH CHECK (true);
REVOKE ALL ON agent_host_history FROM PUBLIC;
GRANT SELECT, INSERT ON agent_host_history TO orchestrator_app;
GRANT SELECT, DELETE ON agent_host_history TO orchestrator_maintenance;

CREATE FUNCTION host_state(p_state text, p_suspect_since timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_state = 'gone' THEN 'gone' WHEN p_suspect_since IS NOT NULL THEN 'suspect' ELSE 'healthy' END
$$;

-- A trigger, so that whoever changes a host's state leaves it in the history. Heartbeats change none of these columns.
CREATE FUNCTION note_host_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO agent_host_history (tenant, host_id, state, speed, reason)
    VALUES (NEW.tenant, NEW.host_id, host_state(NEW.state, NEW.suspect_since), NEW.speed, NEW.state_reason);
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION host_state(text, timestamptz), note_host_state() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION host_state(text, timestamptz), note_host_state()
    TO orchestrator_app, orchestrator_maintenance;
CREATE TRIGGER note_new_host AFTER INSERT ON agent_hosts FOR EACH ROW EXECUTE FUNCTION note_host_state();
CREATE TRIGGER note_host_state AFTER UPDATE ON agent_hosts FOR EACH ROW
    WHEN (host_state(OLD.state, OLD.suspect_since) <> host_state(NEW.state, NEW.suspect_since)
          OR OLD.speed <> NEW.speed)
    EXECUTE FUNCTION note_host_state();
