-- name: mark_suspect
UPDATE agent_hosts SET suspect_since = clock_timestamp(), state_reason = $3
 WHERE tenant = $1 AND host_id = ANY ($2::text[]) AND state = 'live' AND suspect_since IS NULL
RETURNING host_id

-- name: mark_recovered
UPDATE agent_hosts SET suspect_since = NULL, state_reason = 'heard again'
 WHERE tenant = $1 AND host_id = ANY ($2::text[]) AND state = 'live' AND suspect_since IS NOT NULL
RETURNING host_id

-- name: explain_gone
UPDATE agent_hosts SET state_reason = $3
 WHERE tenant = $1 AND host_id = $2 AND state = 'live'

-- name: note_measured
-- A moving average over what the workers see, each for itself; the newest of them counts for a third.
UPDATE agent_hosts AS h
   SET measured_speed = CASE
           WHEN h.measured_at IS NULL OR h.measured_at < clock_timestamp() - make_interval(secs => $5) THEN m.speed
           ELSE greatest(least(h.measured_speed + (m.speed - h.measured_speed) / 3, 1), 0.01) END,
       measured_tasks = h.measured_tasks + m.tasks,
       measured_at = clock_timestamp()
  FROM unnest($2::text[], $3::real[], $4::bigint[]) AS m (host_id, speed, tasks)
 WHERE h.tenant = $1 AND h.host_id = m.host_id AND h.state = 'live'

-- name: measured
-- What was measured too long ago says nothing any more: such a host counts as any other.
SELECT tenant, host_id,
       CASE WHEN measured_at > clock_timestamp() - make_interval(secs => $1) THEN measured_speed ELSE 1 END
           AS measured_speed
  FROM agent_hosts
 WHERE state = 'live' AND measured_at IS NOT NULL AND (measured_speed < 1 OR speed < 1)
 ORDER BY tenant, host_id
 LIMIT $2

-- name: set_speed
UPDATE agent_hosts SET speed = $3, state_reason = $4
 WHERE tenant = $1 AND host_id = $2 AND state = 'live' AND speed <> $3
RETURNING host_id

-- name: page
SELECT host_id, types, capabilities, slots, features, pid, host_state(state, suspect_since) AS state, state_reason,
       suspect_since, speed, measured_speed, measured_tasks, registered_at, last_seen
  FROM agent_hosts
 WHERE tenant = $1
   AND ($3::text IS NULL OR host_id > $3)
   AND ($4::text IS NULL OR $4 = ANY (types))
   AND host_state(state, suspect_since) = ANY ($5::text[])
 ORDER BY host_id
 LIMIT $2

-- name: get
SELECT host_id, types, capabilities, slots, features, pid, host_state(state, suspect_since) AS state, state_reason,
       suspect_since, speed, measured_speed, measured_tasks, registered_at, last_seen
  FROM agent_hosts
 WHERE tenant = $1 AND host_id = $2

-- name: load
-- Tasks are counted by the executions that use these hosts, and those only where the metrics say that some run.
WITH bound AS (
    SELECT a.host_id, a.execution_id, a.agent_id,
           (e.performance_metrics ->> 'tasks_running')::integer > 0 AS busy
      FROM execution_agents AS a
      JOIN workflow_executions AS e ON e.tenant = a.tenant AND e.execution_id = a.execution_id
     WHERE a.tenant = $1 AND a.host_id = ANY ($2::text[]) AND a.status = 'assigned'
       AND e.status IN ('planning', 'executing', 'paused')
), running AS (
    SELECT b.host_id, count(*) AS tasks
      FROM (SELECT DISTINCT execution_id FROM bound WHERE busy) AS x
      JOIN execution_tasks AS t ON t.tenant = $1 AND t.execution_id = x.execution_id AND t.state = 'running'
      JOIN bound AS b ON b.execution_id = t.execution_id AND b.agent_id = t.agent_id
     GROUP BY b.host_id
)
SELECT b.host_id, count(*) AS agents, count(DISTINCT b.execution_id) AS executions,
       coalesce((SELECT r.tasks FROM running AS r WHERE r.host_id = b.host_id), 0) AS tasks
  FROM bound AS b
 GROUP BY b.host_id

-- name: history
SELECT at, state, speed, reason
  FROM agent_host_history
 WHERE tenant = $1 AND host_id = $2
 ORDER BY number DESC
 LIMIT $3

-- name: counts
SELECT host_state(state, suspect_since) AS state, count(*) AS hosts
  FROM agent_hosts
 GROUP BY 1
