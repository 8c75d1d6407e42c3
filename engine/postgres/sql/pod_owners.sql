-- name: open_among
SELECT e.tenant, e.execution_id, e.status IN ('planning', 'executing', 'paused') AS open
  FROM unnest($1::text[], $2::uuid[]) AS a (tenant, execution_id)
  JOIN workflow_executions AS e ON e.tenant = a.tenant AND e.execution_id = a.execution_id

-- name: claims
SELECT h.tenant, h.host_id, h.execution_id, h.agent_id
  FROM unnest($1::text[], $2::text[]) AS a (tenant, host_id)
  JOIN agent_hosts AS h ON h.tenant = a.tenant AND h.host_id = a.host_id
 WHERE h.execution_id <> ''

-- name: retire_pooled
UPDATE agent_hosts SET state = 'gone'
 WHERE tenant = $1 AND host_id = ANY ($2::text[]) AND execution_id = '' AND state = 'live'
