-- name: connections
-- Of all databases of the server, since its limit is for all; without what is kept for superusers and reserved roles.
SELECT (SELECT coalesce(sum(numbackends), 0) FROM pg_stat_database WHERE datname IS NOT NULL)::bigint AS active,
       current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
           - coalesce(current_setting('reserved_connections', true), '0')::bigint AS most

-- name: open
SELECT d.orchestration_pattern AS pattern, count(*) AS executions
  FROM workflow_executions AS e
  JOIN workflow_definitions AS d ON d.tenant = e.tenant AND d.workflow_id = e.workflow_id
 WHERE e.status IN ('planning', 'executing', 'paused')
 GROUP BY d.orchestration_pattern

-- name: settled_until
-- What ended before is visible by now: no statement takes longer than that.
SELECT clock_timestamp() - make_interval(secs => $1)

-- name: ended
-- In two parts, each of which has an index.
SELECT d.orchestration_pattern AS pattern, x.status, x.seconds
  FROM (SELECT e.tenant, e.workflow_id, e.status,
               extract(epoch FROM e.completed_at - e.started_at)::float8 AS seconds
          FROM workflow_executions AS e
         WHERE e.completed_at > $1 AND e.completed_at <= $2 AND e.journal_deleted_at IS NULL
         UNION ALL
        SELECT e.tenant, e.workflow_id, e.status,
               extract(epoch FROM e.completed_at - e.started_at)::float8 AS seconds
          FROM workflow_executions AS e
         WHERE e.completed_at > $1 AND e.completed_at <= $2 AND e.journal_deleted_at IS NOT NULL) AS x
  JOIN workflow_definitions AS d ON d.tenant = x.tenant AND d.workflow_id = x.workflow_id
 LIMIT $3

-- name: hook_runs
SELECT status, count(*) AS runs
  FROM hook_executions
 WHERE executed_at > $1 AND executed_at <= $2
 GROUP BY status
