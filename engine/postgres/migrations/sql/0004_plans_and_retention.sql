-- Large plans, once a tenant and content instead of once an execution; and what deleting by age needs.

CREATE TABLE kernel_plans (
    tenant text COLLATE "C" NOT NULL,
    plan_hash text COLLATE "C" NOT NULL,
    plan text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, plan_hash)
);
COMMENT ON COLUMN kernel_plans.plan IS 'JSON as it was written; its SHA-256 is plan_hash';

ALTER TABLE kernel_plans ENABLE ROW LEVEL SECURITY;
ALTER TABLE kernel_plans FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON kernel_plans FOR ALL TO orchestrator_app
    USING (tenant = current_setting('app.tenant', true))
    WITH CHECK (tenant = current_setting('app.tenant', true));
CREATE POLICY maintenance ON kernel_plans FOR ALL TO orchestrator_maintenance USING (true) WITH CHECK (true);

REVOKE ALL ON kernel_plans FROM PUBLIC;
GRANT SELECT, INSERT ON kernel_plans TO orchestrator_app;

-- The key keeps a plan that an execution refers to, also one that is being inserted while its plan is being deleted.
ALTER TABLE workflow_executions
    ADD COLUMN plan_hash text COLLATE "C",
    ADD COLUMN journal_deleted_at timestamptz,
    ADD CONSTRAINT workflow_executions_plan_fkey
        FOREIGN KEY (tenant, plan_hash) REFERENCES kernel_plans (tenant, plan_hash);
COMMENT ON COLUMN workflow_executions.plan_hash IS 'the plan that launch refers to; NULL when launch holds it';
COMMENT ON COLUMN workflow_executions.journal_deleted_at IS 'closed in Temporal too, and its journal deleted';

CREATE INDEX idx_execution_plan ON workflow_executions (tenant, plan_hash) WHERE plan_hash IS NOT NULL;
CREATE INDEX idx_execution_journal_kept ON workflow_executions (completed_at)
    WHERE completed_at IS NOT NULL AND journal_deleted_at IS NULL;
CREATE INDEX idx_execution_journal_deleted ON workflow_executions (completed_at)
    WHERE journal_deleted_at IS NOT NULL;
CREATE INDEX idx_host_gone ON agent_hosts (last_seen) WHERE state = 'gone';
CREATE INDEX idx_idempotency_key_age ON idempotency_keys (created_at);
CREATE INDEX idx_operation_age ON operation_log (recorded_at);
CREATE INDEX idx_cached_result_age ON result_cache (created_at);

-- Only the maintenance role deletes, and it may read no more than that and relaunching take.
GRANT SELECT (tenant, plan_hash, plan, created_at), UPDATE (created_at), DELETE ON kernel_plans TO orchestrator_maintenance;
GRANT UPDATE (journal_deleted_at), DELETE ON workflow_executions TO orchestrator_maintenance;
GRANT SELECT (tenant, execution_id), DELETE ON
    tick_journal, execution_events, workflow_checkpoints, execution_control, payloads
    TO orchestrator_maintenance;
GRANT DELETE ON execution_tasks, execution_agents, agent_hosts TO orchestrator_maintenance;
GRANT SELECT (tenant, workflow_execution_id), DELETE ON hook_executions TO orchestrator_maintenance;
GRANT SELECT (tenant, operation, key, created_at), DELETE ON idempotency_keys TO orchestrator_maintenance;
GRANT SELECT (tenant, id, recorded_at), DELETE ON operation_log TO orchestrator_maintenance;
