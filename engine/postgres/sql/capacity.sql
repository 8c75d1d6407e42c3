-- name: totals
SELECT *
  FROM capacity_totals()

-- name: report
SELECT *
  FROM capacity_report($1)

-- name: lock
-- Shared with those that start at once (plan_execution): who holds it knows all that is taken.
SELECT pg_advisory_xact_lock(hashtextextended('orchestrator/capacity', 0))

-- name: candidates
-- The longest waiting of each tenant and priority: no more than can start in one round can be next.
SELECT c.tenant, c.execution_id, c.priority, c.queued_at, c.agents, c.cpu_micros, c.memory_bytes
  FROM (SELECT w.*, row_number() OVER (
                        PARTITION BY w.tenant, w.priority ORDER BY w.queued_at, w.execution_id) AS place
          FROM capacity_claims AS w
         WHERE w.waiting) AS c
 WHERE c.place <= $1

-- name: running
SELECT tenant, count(*) AS executions
  FROM capacity_claims
 WHERE tenant = ANY ($1::text[]) AND NOT waiting
 GROUP BY tenant

-- name: start
-- The execution's row before its claim, as whoever closes it locks them. One that is being cancelled is left out.
WITH free AS (
    SELECT e.tenant, e.execution_id
      FROM workflow_executions AS e
      JOIN unnest($1::text[], $2::uuid[]) AS u (tenant, execution_id)
        ON u.tenant = e.tenant AND u.execution_id = e.execution_id
     WHERE e.status = 'planning'
       FOR UPDATE OF e SKIP LOCKED
), started AS (
    UPDATE capacity_claims AS c SET waiting = false
      FROM free AS f
     WHERE c.tenant = f.tenant AND c.execution_id = f.execution_id AND c.waiting
    RETURNING c.tenant, c.execution_id
)
UPDATE workflow_executions AS e SET started_at = clock_timestamp(), updated_at = clock_timestamp()
  FROM started AS s
 WHERE e.tenant = s.tenant AND e.execution_id = s.execution_id
RETURNING e.tenant, e.execution_id, e.status, e.last_tick, e.base_tick, e.updated_at, e.launch, e.started_at

-- name: recover_claims
-- Open executions without a claim: from before claims were kept. What their agents take is not known any more.
INSERT INTO capacity_claims (tenant, execution_id, waiting, priority, queued_at, agents, cpu_micros, memory_bytes)
SELECT e.tenant, e.execution_id, false, 1, e.started_at,
       (SELECT coalesce(sum((r.role ->> 'count')::integer), 0) FROM jsonb_each(e.roles) AS r (name, role)), 0, 0
  FROM (SELECT x.*
          FROM workflow_executions AS x
         WHERE x.status IN ('planning', 'executing', 'paused')
           AND NOT EXISTS (
               SELECT FROM capacity_claims AS c WHERE c.tenant = x.tenant AND c.execution_id = x.execution_id)
           FOR UPDATE SKIP LOCKED) AS e
ON CONFLICT (tenant, execution_id) DO NOTHING

-- name: drop_claims
-- Claims of what is closed or gone.
DELETE FROM capacity_claims AS c
 WHERE NOT EXISTS (
       SELECT
         FROM workflow_executions AS e
        WHERE e.tenant = c.tenant AND e.execution_id = c.execution_id
          AND e.status IN ('planning', 'executing', 'paused'))

-- name: correct_usage
-- Claims and sums as one snapshot shows them, so that whoever starts or closes meanwhile does not disturb it.
WITH claimed AS (
    SELECT count(*) FILTER (WHERE NOT waiting) AS executions,
           coalesce(sum(agents) FILTER (WHERE NOT waiting), 0) AS agents,
           coalesce(sum(cpu_micros) FILTER (WHERE NOT waiting), 0) AS cpu_micros,
           coalesce(sum(memory_bytes) FILTER (WHERE NOT waiting), 0) AS memory_bytes,
           count(*) FILTER (WHERE waiting AND priority = 0) AS waiting_high,
           count(*) FILTER (WHERE waiting AND priority = 1) AS waiting_normal,
           count(*) FILTER (WHERE waiting AND priority = 2) AS waiting_low
      FROM capacity_claims
), summed AS (
    SELECT coalesce(sum(executions), 0) AS executions, coalesce(sum(agents), 0) AS agents,
           coalesce(sum(cpu_micros), 0) AS cpu_micros, coalesce(sum(memory_bytes), 0) AS memory_bytes,
           coalesce(sum(waiting_high), 0) AS waiting_high, coalesce(sum(waiting_normal), 0) AS waiting_normal,
           coalesce(sum(waiting_low), 0) AS waiting_low
      FROM capacity_usage
     WHERE tenant = '*'
)
INSERT INTO capacity_usage AS u (
    tenant, shard, executions, agents, cpu_micros, memory_bytes, waiting_high, waiting_normal, waiting_low
)
SELECT '*', pg_backend_pid() % 32, c.executions - s.executions, c.agents - s.agents, c.cpu_micros - s.cpu_micros,
       c.memory_bytes - s.memory_bytes, c.waiting_high - s.waiting_high, c.waiting_normal - s.waiting_normal,
       c.waiting_low - s.waiting_low
  FROM claimed AS c, summed AS s
 WHERE ROW(c.*) IS DISTINCT FROM ROW(s.*)
ON CONFLICT (tenant, shard) DO UPDATE SET
    executions = u.executions + excluded.executions, agents = u.agents + excluded.agents,
    cpu_micros = u.cpu_micros + excluded.cpu_micros, memory_bytes = u.memory_bytes + excluded.memory_bytes,
    waiting_high = u.waiting_high + excluded.waiting_high,
    waiting_normal = u.waiting_normal + excluded.waiting_normal,
    waiting_low = u.waiting_low + excluded.waiting_low
