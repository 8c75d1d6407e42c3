-- Hosts that serve one agent of one execution only, as a pod's does.
ALTER TABLE agent_hosts
    ADD COLUMN execution_id text COLLATE "C",
    ADD COLUMN agent_id text COLLATE "C";
COMMENT ON COLUMN agent_hosts.execution_id IS
    'dedicated to this execution; empty: waits in a pool to be claimed; NULL: serves any agent of its types';

CREATE INDEX idx_host_dedicated ON agent_hosts (tenant, execution_id) WHERE execution_id IS NOT NULL;
