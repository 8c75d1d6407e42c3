-- name: open_executions
-- That have been quiet for a moment: the ticks of the others publish.
SELECT tenant, execution_id, workflow_id, trace_id, last_sequence
  FROM workflow_executions
 WHERE status IN ('planning', 'executing', 'paused') AND ($1::uuid IS NULL OR execution_id > $1)
   AND updated_at < clock_timestamp() - interval '1 second'
 ORDER BY execution_id
 LIMIT $2

-- name: closed_executions
SELECT tenant, execution_id, workflow_id, trace_id, last_sequence, completed_at
  FROM workflow_executions
 WHERE completed_at IS NOT NULL AND NOT published AND completed_at > $1
   AND completed_at < clock_timestamp() - interval '1 second'
 ORDER BY completed_at
 LIMIT $2

-- name: facts
SELECT v.sequence, v.epoch, v.event_type, v.occurred_at AS timestamp, v.recorded_at, v.payload, e.trace_id
  FROM workflow_executions AS e
 CROSS JOIN LATERAL execution_facts($1, $2, $3, $4) AS v
 WHERE e.tenant = $1 AND e.execution_id = $2
 ORDER BY v.sequence

-- name: confirm
-- Unless more has happened to it since it was looked at.
UPDATE workflow_executions AS e SET published = true
  FROM unnest($1::text[], $2::uuid[], $3::bigint[]) AS c (tenant, execution_id, last_sequence)
 WHERE e.tenant = c.tenant AND e.execution_id = c.execution_id AND e.last_sequence = c.last_sequence
   AND e.completed_at IS NOT NULL
