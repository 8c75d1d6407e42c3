-- name: body
-- Of deleted definitions too: what runs keeps its definition.
SELECT e.execution_id, e.workflow_id, e.input_data, d.definition, e.trace_id
  FROM workflow_executions AS e
  JOIN workflow_definitions AS d ON d.tenant = e.tenant AND d.workflow_id = e.workflow_id
 WHERE e.tenant = $1 AND e.execution_id = $2

-- name: results
-- `elements`: it stands for so many, whose results make its own.
SELECT t.task_id, t.state, t.attempt, t.result, t.result_ref, p.encoding, p.body, g.size AS elements
  FROM execution_tasks AS t
  LEFT JOIN LATERAL (
       SELECT x.size
         FROM execution_groups AS x
        WHERE x.tenant = $1 AND x.execution_id = $2 AND x.task_id = t.task_id
        LIMIT 1) AS g ON true
  LEFT JOIN LATERAL (
       SELECT x.encoding, x.body
         FROM payloads AS x
        WHERE x.tenant = $1 AND x.execution_id = $2 AND x.reference = t.result_ref
        LIMIT 1) AS p ON true
 WHERE t.tenant = $1 AND t.execution_id = $2 AND t.task_id = ANY ($3::text[]) AND t.state = 'completed'

-- name: has_payload
SELECT true
  FROM payloads
 WHERE tenant = $1 AND execution_id = $2 AND reference = $3

-- name: put_payload
INSERT INTO payloads (tenant, execution_id, reference, encoding, size_bytes, body)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant, execution_id, reference) DO NOTHING

-- name: payload
SELECT encoding, body
  FROM payloads
 WHERE tenant = $1 AND execution_id = $2 AND reference = $3
