-- Row-level security and grants. orchestrator_app sees the tenant that its transaction names and no other;
-- orchestrator_maintenance sees all. Neither owns anything, and FORCE binds the owner too.

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO orchestrator_app, orchestrator_maintenance;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'workflow_definitions', 'workflow_executions', 'execution_tasks', 'execution_agents', 'tick_journal',
        'execution_events', 'workflow_checkpoints', 'execution_control', 'payloads', 'agent_hosts',
        'operation_log', 'workflow_hooks', 'hook_executions'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant_isolation ON %I FOR ALL TO orchestrator_app '
            'USING (tenant = current_setting(''app.tenant'', true)) '
            'WITH CHECK (tenant = current_setting(''app.tenant'', true))', name);
        EXECUTE format(
            'CREATE POLICY maintenance ON %I FOR ALL TO orchestrator_maintenance USING (true) WITH CHECK (true)',
            name);
    END LOOP;
END $$;

-- What is written once is never changed: journal, audit logs, checkpoints, payloads.
GRANT SELECT, INSERT ON
    tick_journal, execution_events, workflow_checkpoints, payloads, operation_log, hook_executions
    TO orchestrator_app;
GRANT SELECT, INSERT ON workflow_definitions TO orchestrator_app;
GRANT UPDATE (deleted_at, updated_at) ON workflow_definitions TO orchestrator_app;
GRANT SELECT, INSERT ON workflow_executions TO orchestrator_app;
GRANT UPDATE (
    status, current_phase, performance_metrics, error_details, completed_at, updated_at, epoch, last_tick, base_tick,
    last_sequence
) ON workflow_executions TO orchestrator_app;
GRANT SELECT, INSERT, UPDATE ON execution_tasks, execution_agents, execution_control, agent_hosts
    TO orchestrator_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON workflow_hooks TO orchestrator_app;
GRANT SELECT ON execution_documents TO orchestrator_app;

GRANT SELECT ON workflow_executions, execution_tasks, execution_agents, agent_hosts TO orchestrator_maintenance;
GRANT UPDATE (progress) ON execution_tasks TO orchestrator_maintenance;
