-- name: tenants
-- One look at the index for each tenant; and those that have statistics of what has gone.
WITH RECURSIVE present AS (
    SELECT min(tenant) AS tenant FROM workflow_executions
     UNION ALL
    SELECT (SELECT min(e.tenant) FROM workflow_executions AS e WHERE e.tenant > p.tenant)
      FROM present AS p
     WHERE p.tenant IS NOT NULL
)
SELECT tenant FROM present WHERE tenant > $1
 UNION
SELECT tenant FROM execution_statistics WHERE scope = 'tenant' AND tenant > $1
 ORDER BY tenant
 LIMIT $2

-- name: refresh
-- Of one tenant. What is left of rows that were not written again (a workflow whose executions have gone) is deleted.
WITH runs AS (
    SELECT e.workflow_id::text AS workflow_id, d.orchestration_pattern, e.status, e.started_at,
           CASE WHEN e.status = 'completed'
                THEN extract(epoch FROM e.completed_at - e.started_at)::double precision END AS seconds,
           coalesce((e.performance_metrics ->> 'tasks_completed')::bigint, 0) AS tasks_completed,
           coalesce((e.performance_metrics ->> 'tasks_failed')::bigint, 0) AS tasks_failed,
           CASE WHEN e.status = 'failed' THEN coalesce(e.error_details ->> 'error_code', '') END AS error_code
      FROM workflow_executions AS e
      JOIN workflow_definitions AS d ON d.tenant = e.tenant AND d.workflow_id = e.workflow_id
     WHERE e.tenant = $1
), scoped AS (
    SELECT r.*, s.scope, s.key
      FROM runs AS r
     CROSS JOIN LATERAL (VALUES ('tenant', ''), ('pattern', r.orchestration_pattern), ('workflow', r.workflow_id))
                AS s (scope, key)
), counted AS (
    SELECT scope, key, error_code, count(*) AS n,
           row_number() OVER (PARTITION BY scope, key ORDER BY count(*) DESC, error_code) AS place
      FROM scoped
     WHERE error_code IS NOT NULL
     GROUP BY scope, key, error_code
), failures AS (
    SELECT scope, key, jsonb_object_agg(error_code, n) AS failures
      FROM counted
     WHERE place <= 20
     GROUP BY scope, key
), written AS (
    INSERT INTO execution_statistics AS x (
        tenant, scope, key, planning, executing, paused, completed, failed, cancelled, duration_p50_seconds,
        duration_p95_seconds, tasks_completed, tasks_failed, failures, last_started_at, as_of
    )
    SELECT $1, s.scope, s.key,
           count(*) FILTER (WHERE s.status = 'planning'), count(*) FILTER (WHERE s.status = 'executing'),
           count(*) FILTER (WHERE s.status = 'paused'), count(*) FILTER (WHERE s.status = 'completed'),
           count(*) FILTER (WHERE s.status = 'failed'), count(*) FILTER (WHERE s.status = 'cancelled'),
           percentile_disc(0.5) WITHIN GROUP (ORDER BY s.seconds),
           percentile_disc(0.95) WITHIN GROUP (ORDER BY s.seconds),
           sum(s.tasks_completed), sum(s.tasks_failed), coalesce(min(f.failures::text)::jsonb, '{}'),
           max(s.started_at), now()
      FROM scoped AS s
      LEFT JOIN failures AS f ON f.scope = s.scope AND f.key = s.key
     GROUP BY s.scope, s.key
    ON CONFLICT (tenant, scope, key) DO UPDATE SET
        planning = excluded.planning, executing = excluded.executing, paused = excluded.paused,
        completed = excluded.completed, failed = excluded.failed, cancelled = excluded.cancelled,
        duration_p50_seconds = excluded.duration_p50_seconds, duration_p95_seconds = excluded.duration_p95_seconds,
        tasks_completed = excluded.tasks_completed, tasks_failed = excluded.tasks_failed,
        failures = excluded.failures, last_started_at = excluded.last_started_at, as_of = excluded.as_of
    RETURNING scope, key
)
DELETE FROM execution_statistics AS x
 WHERE x.tenant = $1 AND NOT EXISTS (SELECT FROM written AS w WHERE w.scope = x.scope AND w.key = x.key)

-- name: overall
SELECT *
  FROM execution_statistics
 WHERE tenant = $1 AND scope IN ('tenant', 'pattern')
 ORDER BY scope, key

-- name: workflows
SELECT x.*, d.name AS workflow_name, d.version, d.orchestration_pattern
  FROM execution_statistics AS x
  JOIN workflow_definitions AS d ON d.tenant = x.tenant AND d.workflow_id = x.key::uuid
 WHERE x.tenant = $1 AND x.scope = 'workflow'
   AND ($3::text IS NULL OR x.key > $3)
   AND ($4::text IS NULL OR x.key = $4)
 ORDER BY x.key
 LIMIT $2
