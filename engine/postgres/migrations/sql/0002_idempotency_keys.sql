-- What idempotency keys were first used for. Executions have ids made of theirs and need no row here.
CREATE TABLE idempotency_keys (
    tenant text COLLATE "C" NOT NULL,
    operation text NOT NULL,
    key text NOT NULL,
    request_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, operation, key)
);

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON idempotency_keys FOR ALL TO orchestrator_app
    USING (tenant = current_setting('app.tenant', true))
    WITH CHECK (tenant = current_setting('app.tenant', true));
CREATE POLICY maintenance ON idempotency_keys FOR ALL TO orchestrator_maintenance USING (true) WITH CHECK (true);

REVOKE ALL ON idempotency_keys FROM PUBLIC;
GRANT SELECT, INSERT ON idempotency_keys TO orchestrator_app;
