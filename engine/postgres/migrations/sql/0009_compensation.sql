-- Steps that could not be undone when their execution closed: for an operator to retry or to mark as done.
CREATE TABLE execution_compensations (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    position integer NOT NULL,
    state text NOT NULL,
    certain boolean NOT NULL,
    attempts integer NOT NULL,
    blocked_by text[] NOT NULL,
    error_code text NOT NULL,
    error_message text NOT NULL,
    epoch integer NOT NULL,
    retry json NOT NULL,
    request_id uuid,
    actor text,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, execution_id, task_id),
    CONSTRAINT valid_state CHECK (
        state IN ('waiting', 'failed', 'retrying', 'compensated', 'never_happened', 'marked_done')
    )
);
COMMENT ON COLUMN execution_compensations.blocked_by IS 'steps that must be undone before it';
COMMENT ON COLUMN execution_compensations.request_id IS 'the operator''s request whose run retries it';

ALTER TABLE execution_compensations ENABLE ROW LEVEL SECURITY;
ALTER TABLE execution_compensations FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON execution_compensations FOR ALL TO orchestrator_app
    USING (tenant = current_setting('app.tenant', true))
    WITH CHECK (tenant = current_setting('app.tenant', true));
CREATE POLICY maintenance ON execution_compensations FOR ALL TO orchestrator_maintenance
    USING (true) WITH CHECK (true);

REVOKE ALL ON execution_compensations FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE ON execution_compensations TO orchestrator_app;
GRANT SELECT, DELETE ON execution_compensations TO orchestrator_maintenance;
