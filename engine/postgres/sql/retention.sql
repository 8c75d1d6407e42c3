-- name: journals
SELECT tenant, execution_id, completed_at
  FROM workflow_executions
 WHERE completed_at < clock_timestamp() - make_interval(secs => $1::float8 * 86400) AND journal_deleted_at IS NULL
   AND ($3::timestamptz IS NULL OR completed_at >= $3)
 ORDER BY completed_at
 LIMIT $2

-- name: delete_journal
DELETE FROM tick_journal
 WHERE tenant = $1 AND execution_id = $2

-- name: mark_journal_deleted
UPDATE workflow_executions SET journal_deleted_at = clock_timestamp()
 WHERE tenant = $1 AND execution_id = $2 AND completed_at IS NOT NULL

-- name: expired
SELECT tenant, execution_id
  FROM workflow_executions
 WHERE completed_at < clock_timestamp() - make_interval(secs => $1::float8 * 86400) AND journal_deleted_at IS NOT NULL
 ORDER BY completed_at
 LIMIT $2

-- name: delete_execution
-- In one statement, at whose end its foreign keys are looked at. Every table with rows of executions stands here but its
-- events, which go with their partition: nobody is shown events of an execution that is not there.
WITH journal AS (
    DELETE FROM tick_journal WHERE tenant = $1 AND execution_id = $2
), tasks AS (
    DELETE FROM execution_tasks WHERE tenant = $1 AND execution_id = $2
), agents AS (
    DELETE FROM execution_agents WHERE tenant = $1 AND execution_id = $2
), checkpoints AS (
    DELETE FROM workflow_checkpoints WHERE tenant = $1 AND execution_id = $2
), control AS (
    DELETE FROM execution_control WHERE tenant = $1 AND execution_id = $2
), payload AS (
    DELETE FROM payloads WHERE tenant = $1 AND execution_id = $2
), growth AS (
    DELETE FROM execution_growth WHERE tenant = $1 AND execution_id = $2
), groups AS (
    DELETE FROM execution_groups WHERE tenant = $1 AND execution_id = $2
), waits AS (
    DELETE FROM execution_waits WHERE tenant = $1 AND execution_id = $2
), external AS (
    DELETE FROM external_events WHERE tenant = $1 AND execution_id = $2
), keys AS (
    DELETE FROM reuse_keys WHERE tenant = $1 AND execution_id = $2
), compensations AS (
    DELETE FROM execution_compensations WHERE tenant = $1 AND execution_id = $2
), hooks AS (
    DELETE FROM hook_executions WHERE tenant = $1 AND workflow_execution_id = $2
), deliveries AS (
    DELETE FROM hook_deliveries WHERE tenant = $1 AND execution_id = $2
)
DELETE FROM workflow_executions
 WHERE tenant = $1 AND execution_id = $2
RETURNING plan_hash

-- name: unused_plans
-- Stored for an execution that was refused then. There are few plans: one a large workflow and retry policy.
SELECT p.tenant, p.plan_hash
  FROM kernel_plans AS p
 WHERE p.created_at < clock_timestamp() - make_interval(secs => $1::float8 * 86400)
   AND NOT EXISTS (SELECT FROM workflow_executions AS e WHERE e.tenant = p.tenant AND e.plan_hash = p.plan_hash)
 LIMIT $2

-- name: lock_plan
-- Whoever inserts an execution with it just now holds it, and keeps it.
SELECT true
  FROM kernel_plans
 WHERE tenant = $1 AND plan_hash = $2
   FOR UPDATE SKIP LOCKED

-- name: delete_unused_plan
DELETE FROM kernel_plans AS p
 WHERE p.tenant = $1 AND p.plan_hash = $2
   AND NOT EXISTS (SELECT FROM workflow_executions AS e WHERE e.tenant = p.tenant AND e.plan_hash = p.plan_hash)

-- name: delete_gone_hosts
DELETE FROM agent_hosts AS h
 USING (SELECT tenant, host_id
          FROM agent_hosts
         WHERE state = 'gone' AND last_seen < clock_timestamp() - make_interval(secs => $1::float8 * 86400)
         ORDER BY last_seen
         LIMIT $2) AS old
 WHERE h.tenant = old.tenant AND h.host_id = old.host_id AND h.state = 'gone'

-- name: delete_host_history
-- Of hosts that live on; that of others goes with them.
DELETE FROM agent_host_history AS h
 USING (SELECT tenant, host_id, number
          FROM agent_host_history
         WHERE at < clock_timestamp() - make_interval(secs => $1::float8 * 86400)
         ORDER BY at
         LIMIT $2) AS old
 WHERE h.tenant = old.tenant AND h.host_id = old.host_id AND h.number = old.number

-- name: delete_cached_results
DELETE FROM result_cache AS r
 USING (SELECT tenant, key
          FROM result_cache
         WHERE created_at < clock_timestamp() - make_interval(secs => $1::float8 * 86400)
         ORDER BY created_at
         LIMIT $2) AS old
 WHERE r.tenant = old.tenant AND r.key = old.key

-- name: delete_idempotency_keys
DELETE FROM idempotency_keys AS k
 USING (SELECT tenant, operation, key
          FROM idempotency_keys
         WHERE created_at < clock_timestamp() - make_interval(secs => $1::float8 * 86400)
         ORDER BY created_at
         LIMIT $2) AS old
 WHERE k.tenant = old.tenant AND k.operation = old.operation AND k.key = old.key

-- name: delete_operations
DELETE FROM operation_log AS o
 USING (SELECT tenant, id
          FROM operation_log
         WHERE recorded_at < clock_timestamp() - make_interval(secs => $1::float8 * 86400)
         ORDER BY recorded_at
         LIMIT $2) AS old
 WHERE o.tenant = old.tenant AND o.id = old.id

-- name: delete_hook_executions
DELETE FROM hook_executions AS h
 USING (SELECT tenant, execution_id
          FROM hook_executions
         WHERE executed_at < clock_timestamp() - make_interval(secs => $1::float8 * 86400)
         ORDER BY executed_at
         LIMIT $2) AS old
 WHERE h.tenant = old.tenant AND h.execution_id = old.execution_id

-- name: delete_hook_deliveries
DELETE FROM hook_deliveries AS d
 USING (SELECT tenant, execution_id, tick, position
          FROM hook_deliveries
         WHERE created_at < clock_timestamp() - make_interval(secs => $1::float8 * 86400)
         LIMIT $2) AS old
 WHERE d.tenant = old.tenant AND d.execution_id = old.execution_id AND d.tick = old.tick
   AND d.position = old.position

-- name: prepare_event_partitions
SELECT prepare_event_partitions($1, $2)

-- name: old_event_partitions
SELECT name, from_at, until_at
  FROM event_partitions()
 WHERE until_at < clock_timestamp() - make_interval(secs => $1::float8 * 86400)
 ORDER BY until_at

-- name: count_kept_events
-- Of executions that are still there: open ones, and those that ended late. An hour, for clocks that were set back.
SELECT count(*)
  FROM (SELECT
          FROM workflow_executions AS e
          JOIN execution_events AS v ON v.tenant = e.tenant AND v.execution_id = e.execution_id
         WHERE e.recorded_from < $2::timestamptz + interval '1 hour'
           AND v.recorded_at >= $1 AND v.recorded_at < $2
         LIMIT $3) AS kept

-- name: keep_events
SELECT keep_events($1, $2, $3)

-- name: drop_event_partition
SELECT drop_event_partition($1, $2)

-- name: delete_events_without_partition
-- What no partition was made for in time is in the default partition, which stays.
DELETE FROM execution_events_default AS v
 USING (SELECT d.tenant, d.execution_id, d.sequence
          FROM execution_events_default AS d
         WHERE d.recorded_at < clock_timestamp() - make_interval(secs => $1::float8 * 86400)
           AND NOT EXISTS (SELECT FROM workflow_executions AS e
                            WHERE e.tenant = d.tenant AND e.execution_id = d.execution_id)
         ORDER BY d.recorded_at
         LIMIT $2) AS old
 WHERE v.tenant = old.tenant AND v.execution_id = old.execution_id AND v.sequence = old.sequence
