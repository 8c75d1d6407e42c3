-- name: plan
-- One round trip: the function names the tenant itself.
SELECT *
  FROM plan_execution($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
                      $22, $23, $24)

-- name: find_planned
SELECT e.execution_id, e.workflow_id, e.status, e.started_at, e.request_hash, coalesce(c.waiting, false) AS waiting
  FROM workflow_executions AS e
  LEFT JOIN capacity_claims AS c ON c.tenant = e.tenant AND c.execution_id = e.execution_id
 WHERE e.tenant = $1 AND e.execution_id = $2

-- name: find_open
SELECT execution_id
  FROM workflow_executions
 WHERE tenant = $1 AND workflow_id = $2 AND status IN ('planning', 'executing', 'paused') AND NOT allow_concurrent

-- name: append_event
-- Takes the next sequence from the execution's row, whose lock the caller's update holds.
WITH execution AS (
    UPDATE workflow_executions SET last_sequence = last_sequence + 1, updated_at = clock_timestamp()
     WHERE tenant = $1 AND execution_id = $2
    RETURNING tenant, execution_id, last_sequence, epoch, last_tick, updated_at
)
INSERT INTO execution_events (
    tenant, execution_id, sequence, epoch, tick, event_type, occurred_at, recorded_at, payload
)
SELECT tenant, execution_id, last_sequence, epoch, last_tick, $3, updated_at, updated_at, $4
  FROM execution

-- name: status
-- One round trip: the functions name the tenant themselves.
SELECT s.*, c.roles, c.waiting, c.priority, c.queued_at, c.ahead
  FROM execution_status($1, $2, $3) AS s, execution_claim($1, $2, $3) AS c

-- name: list
SELECT e.execution_id, e.workflow_id, d.name AS workflow_name, d.orchestration_pattern, e.status, e.started_at,
       e.completed_at,
       cardinality(d.task_ids) + coalesce((e.performance_metrics ->> 'tasks_added')::integer, 0) AS tasks_total,
       coalesce((e.performance_metrics ->> 'tasks_completed')::integer, 0) AS tasks_completed,
       coalesce((e.performance_metrics ->> 'tasks_failed')::integer, 0) AS tasks_failed
  FROM workflow_executions AS e
  JOIN workflow_definitions AS d ON d.tenant = e.tenant AND d.workflow_id = e.workflow_id
 WHERE e.tenant = $1
   AND ($3::timestamptz IS NULL OR (e.started_at, e.execution_id) < ($3, $4::uuid))
   AND ($5::text IS NULL OR e.status = $5)
   AND ($6::uuid IS NULL OR e.workflow_id = $6)
 ORDER BY e.started_at DESC, e.execution_id DESC
 LIMIT $2

-- name: exists
SELECT true
  FROM workflow_executions
 WHERE tenant = $1 AND execution_id = $2

-- name: tasks
-- In the plan's order, then those that were added; a task that was never assigned has no row. Each row is looked up by its key: without statistics
-- a plain join of two long lists becomes a nested loop over both.
SELECT p.position, p.task_id, coalesce(t.state, 'pending') AS state, coalesce(t.attempt, 0) AS attempt, t.agent_id,
       coalesce(t.progress, 0) AS progress, t.started_at, t.completed_at, t.result, t.result_ref, t.error
  FROM workflow_executions AS e
  JOIN workflow_definitions AS d ON d.tenant = e.tenant AND d.workflow_id = e.workflow_id
 CROSS JOIN LATERAL (
       SELECT CASE WHEN (e.performance_metrics ->> 'tasks_added')::integer > 0
                   THEN d.task_ids || (SELECT array_agg(g.task_id ORDER BY g.tick, g.position)
                                         FROM execution_growth AS g
                                        WHERE g.tenant = $1 AND g.execution_id = $2)
                   ELSE d.task_ids END AS ids) AS a
 CROSS JOIN LATERAL (
       SELECT u.task_id, u.n + $4 AS position
         FROM unnest(CASE WHEN $5::text IS NULL THEN a.ids[$4 + 1:$4 + $3] ELSE a.ids[$4 + 1:] END)
              WITH ORDINALITY AS u (task_id, n)) AS p
  LEFT JOIN LATERAL (
       SELECT *
         FROM execution_tasks AS x
        WHERE x.tenant = $1 AND x.execution_id = $2 AND x.task_id = p.task_id
        LIMIT 1) AS t ON true
 WHERE e.tenant = $1 AND e.execution_id = $2
   AND ($5::text IS NULL OR coalesce(t.state, 'pending') = $5)
 ORDER BY p.position
 LIMIT $3

-- name: events
SELECT v.sequence, v.epoch, v.event_type, v.occurred_at AS timestamp, v.recorded_at, v.payload, e.trace_id
  FROM workflow_executions AS e
 CROSS JOIN LATERAL execution_facts($1, $2, $3, $4) AS v
 WHERE e.tenant = $1 AND e.execution_id = $2
 ORDER BY v.sequence

-- name: counted_rounds
SELECT DISTINCT ON (v.payload ->> 'task_id') v.epoch, v.payload
  FROM execution_events AS v
 WHERE v.tenant = $1 AND v.execution_id = $2 AND v.event_type = 'vote.counted'
   AND ($3::text IS NULL OR v.payload ->> 'task_id' = $3)
   AND ($4::integer IS NULL OR (v.payload ->> 'round')::integer = $4)
 ORDER BY v.payload ->> 'task_id', v.sequence DESC
 LIMIT $5

-- name: cast_votes
SELECT v.payload
  FROM execution_events AS v
  JOIN unnest($3::text[], $4::integer[], $5::integer[]) AS w (task_id, epoch, round)
    ON w.task_id = v.payload ->> 'task_id' AND w.epoch = v.epoch AND w.round = (v.payload ->> 'round')::integer
 WHERE v.tenant = $1 AND v.execution_id = $2 AND v.event_type = 'vote.cast'
 ORDER BY v.sequence

-- name: last_sequence
SELECT last_sequence
  FROM workflow_executions
 WHERE tenant = $1 AND execution_id = $2

-- name: checkpoints
SELECT checkpoint_id, execution_id, reason, epoch, state_snapshot, recovery_instructions, created_at
  FROM workflow_checkpoints
 WHERE tenant = $1 AND execution_id = $2
   AND ($4::timestamptz IS NULL OR (created_at, checkpoint_id) < ($4, $5::uuid))
 ORDER BY created_at DESC, checkpoint_id DESC
 LIMIT $3

-- name: checkpoint
SELECT checkpoint_id, execution_id, reason, epoch, state_snapshot, recovery_instructions, created_at
  FROM workflow_checkpoints
 WHERE tenant = $1 AND execution_id = $2 AND checkpoint_id = $3

-- name: lock
SELECT status
  FROM workflow_executions
 WHERE tenant = $1 AND execution_id = $2
   FOR UPDATE

-- name: is_waiting
-- After its row is locked, so that its turn cannot come meanwhile.
SELECT waiting
  FROM capacity_claims
 WHERE tenant = $1 AND execution_id = $2

-- name: control
SELECT request_id, action, checkpoint_id, reason, seen_tick
  FROM execution_control
 WHERE tenant = $1 AND execution_id = $2

-- name: write_control
INSERT INTO execution_control (tenant, execution_id, request_id, action, checkpoint_id, reason)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant, execution_id) DO UPDATE SET
    request_id = excluded.request_id, action = excluded.action, checkpoint_id = excluded.checkpoint_id,
    reason = excluded.reason, requested_at = now(), seen_tick = NULL

-- name: close
UPDATE workflow_executions SET status = $3, error_details = $4, completed_at = clock_timestamp()
 WHERE tenant = $1 AND execution_id = $2

-- name: cancel_tasks
-- Also those that have no row yet.
INSERT INTO execution_tasks AS t (tenant, execution_id, task_id, state, epoch, completed_at)
SELECT e.tenant, e.execution_id, p.task_id, 'cancelled', e.epoch, clock_timestamp()
  FROM workflow_executions AS e
  JOIN workflow_definitions AS d ON d.tenant = e.tenant AND d.workflow_id = e.workflow_id
 CROSS JOIN LATERAL (
       SELECT unnest(d.task_ids)
        UNION ALL
       SELECT g.task_id FROM execution_growth AS g WHERE g.tenant = $1 AND g.execution_id = $2) AS p (task_id)
 WHERE e.tenant = $1 AND e.execution_id = $2
ON CONFLICT (tenant, execution_id, task_id) DO UPDATE SET
    state = 'cancelled', completed_at = excluded.completed_at
 WHERE t.state IN ('pending', 'running')
