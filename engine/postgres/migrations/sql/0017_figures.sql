-- Figures for monitoring count the runs of hooks of all tenants by their status.
GRANT SELECT (status) ON hook_executions TO orchestrator_maintenance;
