-- Coordination patterns that tenants have registered. A version never changes: executions run what was stored then.
CREATE TABLE workflow_patterns (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    pattern_id uuid NOT NULL DEFAULT gen_random_uuid(),
    position bigint GENERATED ALWAYS AS IDENTITY,
    description text NOT NULL,
    coordination_logic json NOT NULL,
    configuration_schema json NOT NULL,
    content_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    PRIMARY KEY (tenant, name, version)
);
COMMENT ON COLUMN workflow_patterns.position IS 'the order of registration: of a name, the highest is the newest';
CREATE UNIQUE INDEX idx_pattern_newest ON workflow_patterns (tenant, name, position DESC);

ALTER TABLE workflow_patterns ENABLE ROW LEVEL SECURITY;
ALTER TABLE workflow_patterns FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON workflow_patterns FOR ALL TO orchestrator_app
    USING (tenant = current_setting('app.tenant', true))
    WITH CHECK (tenant = current_setting('app.tenant', true));
CREATE POLICY maintenance ON workflow_patterns FOR ALL TO orchestrator_maintenance USING (true) WITH CHECK (true);

REVOKE ALL ON workflow_patterns FROM PUBLIC;
GRANT SELECT, INSERT ON workflow_patterns TO orchestrator_app;
