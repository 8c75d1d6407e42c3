-- name: task
SELECT t.agent_id, t.task_id, t.result, t.result_ref, p.encoding, p.body
  FROM execution_tasks AS t
  LEFT JOIN LATERAL (
       SELECT x.encoding, x.body
         FROM payloads AS x
        WHERE x.tenant = $1 AND x.execution_id = $2 AND x.reference = t.result_ref
        LIMIT 1) AS p ON true
 WHERE t.tenant = $1 AND t.execution_id = $2 AND t.task_id = $3

-- name: leave
-- In the transaction of the tick that closes the execution.
INSERT INTO execution_compensations (
    tenant, execution_id, task_id, position, state, certain, attempts, blocked_by, error_code, error_message, epoch,
    retry
)
SELECT $1, $2, c.task_id, c.position, c.state, c.certain, c.attempts,
       ARRAY (SELECT json_array_elements_text(c.blocked_by)), c.code, c.message, c.epoch, c.retry
  FROM unnest($3::text[], $4::integer[], $5::text[], $6::boolean[], $7::integer[], $8::json[], $9::text[], $10::text[],
              $11::integer[], $12::json[])
       AS c (task_id, position, state, certain, attempts, blocked_by, code, message, epoch, retry)

-- name: list
SELECT task_id, position, state, certain, attempts, blocked_by, error_code, error_message, actor, updated_at
  FROM execution_compensations
 WHERE tenant = $1 AND execution_id = $2 AND position > $3
 ORDER BY position
 LIMIT $4

-- name: lock
SELECT e.status, e.workflow_id, e.trace_id
  FROM workflow_executions AS e
 WHERE e.tenant = $1 AND e.execution_id = $2
   FOR UPDATE

-- name: one
SELECT task_id, state, attempts, blocked_by, request_id, actor
  FROM execution_compensations
 WHERE tenant = $1 AND execution_id = $2 AND task_id = $3

-- name: set
UPDATE execution_compensations SET
       state = $4, request_id = coalesce($5, request_id), actor = coalesce($6, actor),
       attempts = greatest(attempts, $7), error_code = $8, error_message = $9, updated_at = clock_timestamp()
 WHERE tenant = $1 AND execution_id = $2 AND task_id = $3

-- name: release
-- Steps for which nothing has to be undone any more.
UPDATE execution_compensations AS c SET
       state = 'retrying', request_id = $3, actor = $4, updated_at = clock_timestamp()
 WHERE c.tenant = $1 AND c.execution_id = $2 AND c.state = 'waiting'
   AND NOT EXISTS (
       SELECT 1
         FROM execution_compensations AS b
        WHERE b.tenant = $1 AND b.execution_id = $2 AND b.task_id = ANY (c.blocked_by)
          AND b.state IN ('waiting', 'failed', 'retrying'))
RETURNING c.task_id

-- name: set_task_state
UPDATE execution_tasks SET state = $4
 WHERE tenant = $1 AND execution_id = $2 AND task_id = ANY ($3::text[])

-- name: renew_status
-- What is left decides.
UPDATE workflow_executions AS e SET
       error_details = coalesce(e.error_details, '{}'::jsonb) || jsonb_build_object(
           'compensation_status', CASE WHEN jsonb_array_length(s.names) = 0 THEN 'completed' ELSE 'partial' END,
           'details', coalesce(e.error_details -> 'details', '{}'::jsonb) || jsonb_build_object(
               'left', s.names,
               'compensated', coalesce(e.error_details -> 'details' -> 'compensated', '[]'::jsonb)
                              || to_jsonb($3::text[]))),
       updated_at = clock_timestamp()
  FROM (SELECT coalesce(jsonb_agg(c.task_id ORDER BY c.position), '[]'::jsonb) AS names
          FROM execution_compensations AS c
         WHERE c.tenant = $1 AND c.execution_id = $2 AND c.state IN ('waiting', 'failed', 'retrying')) AS s
 WHERE e.tenant = $1 AND e.execution_id = $2
RETURNING e.error_details ->> 'compensation_status'

-- name: next_retry
SELECT task_id, certain, attempts, epoch, retry
  FROM execution_compensations
 WHERE tenant = $1 AND execution_id = $2 AND request_id = $3 AND state = 'retrying'
 ORDER BY position
 LIMIT 1
