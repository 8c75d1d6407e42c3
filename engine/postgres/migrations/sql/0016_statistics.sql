-- Statistics of executions, counted ahead for lists. A table and no materialized view, since those know no row-level
-- security; refreshed a tenant at a time, so that no statement is long and nobody waits.

CREATE TABLE execution_statistics (
    tenant text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    planning bigint NOT NULL,
    executing bigint NOT NULL,
    paused bigint NOT NULL,
    completed bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    duration_p50_seconds double precision,
    duration_p95_seconds double precision,
    tasks_completed bigint NOT NULL,
    tasks_failed bigint NOT NULL,
    failures jsonb NOT NULL,
    last_started_at timestamptz,
    as_of timestamptz NOT NULL,
    PRIMARY KEY (tenant, scope, key),
    CONSTRAINT valid_scope CHECK (scope IN ('tenant', 'pattern', 'workflow'))
) WITH (fillfactor = 70);
COMMENT ON COLUMN execution_statistics.key IS 'of the scope: nothing, a pattern''s name, a workflow''s id';
COMMENT ON COLUMN execution_statistics.duration_p50_seconds IS 'of those that were completed; NULL without one';
COMMENT ON COLUMN execution_statistics.failures IS 'how many failed with which error code, the most frequent';

ALTER TABLE execution_statistics ENABLE ROW LEVEL SECURITY;
ALTER TABLE execution_statistics FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON execution_statistics FOR ALL TO orchestrator_app
    USING (tenant = current_setting('app.tenant', true))
    WITH CHECK (tenant = current_setting('app.tenant', true));
CREATE POLICY maintenance ON execution_statistics FOR ALL TO orchestrator_maintenance USING (true) WITH CHECK (true);

REVOKE ALL ON execution_statistics FROM PUBLIC;
GRANT SELECT ON execution_statistics TO orchestrator_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON execution_statistics TO orchestrator_maintenance;
GRANT SELECT (tenant, workflow_id, orchestration_pattern) ON workflow_definitions TO orchestrator_maintenance;
