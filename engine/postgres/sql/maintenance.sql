-- name: unlaunched
-- Those that wait for capacity are the scheduler's.
SELECT e.tenant, e.execution_id, e.status, e.last_tick, e.base_tick, e.updated_at, e.launch, e.started_at
  FROM workflow_executions AS e
 WHERE e.status = 'planning' AND e.last_tick = 0
   AND e.updated_at < clock_timestamp() - make_interval(secs => $1)
   AND NOT EXISTS (
       SELECT
         FROM capacity_claims AS c
        WHERE c.tenant = e.tenant AND c.execution_id = e.execution_id AND c.waiting)
 ORDER BY e.updated_at
 LIMIT $2

-- name: behind
SELECT tenant, execution_id, status, last_tick, base_tick, updated_at
  FROM workflow_executions
 WHERE status IN ('planning', 'executing', 'paused') AND last_tick > base_tick
   AND updated_at < clock_timestamp() - make_interval(secs => $1)
 ORDER BY updated_at
 LIMIT $2

-- name: open_executions
-- Without those that wait for capacity: Temporal has not heard of them.
SELECT e.tenant, e.execution_id, e.status, e.last_tick, e.base_tick, e.updated_at
  FROM workflow_executions AS e
 WHERE e.status IN ('planning', 'executing', 'paused')
   AND ($1::uuid IS NULL OR e.execution_id > $1)
   AND NOT EXISTS (
       SELECT
         FROM capacity_claims AS c
        WHERE c.tenant = e.tenant AND c.execution_id = e.execution_id AND c.waiting)
 ORDER BY e.execution_id
 LIMIT $2

-- name: launch_document
SELECT e.launch, e.started_at, e.plan_hash, p.plan
  FROM workflow_executions AS e
  LEFT JOIN kernel_plans AS p ON p.tenant = e.tenant AND p.plan_hash = e.plan_hash
 WHERE e.tenant = $1 AND e.execution_id = $2

-- name: executions_using_host
SELECT DISTINCT a.execution_id
  FROM execution_agents AS a
  JOIN workflow_executions AS e ON e.tenant = a.tenant AND e.execution_id = a.execution_id
 WHERE a.tenant = $1 AND a.host_id = $2 AND a.status = 'assigned'
   AND e.status IN ('planning', 'executing', 'paused')
 LIMIT $3

-- name: executions_missing_hosts
-- Open executions with a role of the type that has fewer agents on hosts than it asks for; not those that wait for
-- capacity, which no workflow carries out yet.
SELECT e.execution_id
  FROM workflow_executions AS e
 WHERE e.tenant = $1 AND e.status IN ('planning', 'executing', 'paused')
   AND NOT EXISTS (
       SELECT
         FROM capacity_claims AS c
        WHERE c.tenant = e.tenant AND c.execution_id = e.execution_id AND c.waiting)
   AND EXISTS (
       SELECT 1
         FROM jsonb_each(e.roles) AS r (name, role)
        WHERE r.role ->> 'type' = $2
          AND (r.role ->> 'count')::integer > (
              SELECT count(*)
                FROM execution_agents AS a
               WHERE a.tenant = e.tenant AND a.execution_id = e.execution_id AND a.role = r.name
                 AND a.status = 'assigned' AND a.host_id IS NOT NULL))
 ORDER BY e.started_at
 LIMIT $3

-- name: is_closed
SELECT status IN ('completed', 'failed', 'cancelled')
  FROM workflow_executions
 WHERE tenant = $1 AND execution_id = $2

-- name: completed_tasks
SELECT task_id
  FROM execution_tasks
 WHERE tenant = $1 AND execution_id = $2 AND task_id = ANY ($3::text[])
   AND state IN ('completed', 'compensating', 'compensated')

-- name: write_progress
-- Never waits for a tick that writes the same rows: progress may be lost, and waiting could deadlock.
WITH reported AS (
    SELECT *
      FROM unnest($2::uuid[], $3::text[], $4::integer[], $5::real[]) AS r (execution_id, task_id, attempt, progress)
), free AS (
    SELECT t.tenant, t.execution_id, t.task_id, r.progress
      FROM reported AS r
      JOIN execution_tasks AS t
        ON t.tenant = $1 AND t.execution_id = r.execution_id AND t.task_id = r.task_id
     WHERE t.state = 'running' AND t.attempt = r.attempt
       FOR UPDATE OF t SKIP LOCKED
)
UPDATE execution_tasks AS t SET progress = f.progress
  FROM free AS f
 WHERE t.tenant = f.tenant AND t.execution_id = f.execution_id AND t.task_id = f.task_id

-- name: try_lead
SELECT pg_try_advisory_lock(hashtextextended('orchestrator/' || $1, 0))
