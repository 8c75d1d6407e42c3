-- name: insert
INSERT INTO workflow_definitions (
    tenant, name, version, orchestration_pattern, definition, content_hash, plan, task_ids, estimated_resources,
    created_by
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant, name, version) WHERE deleted_at IS NULL DO NOTHING
RETURNING workflow_id

-- name: find
SELECT workflow_id, content_hash
  FROM workflow_definitions
 WHERE tenant = $1 AND name = $2 AND version = $3 AND deleted_at IS NULL

-- name: get
SELECT workflow_id, name, version, orchestration_pattern, cardinality(task_ids) AS task_count, created_at, updated_at,
       created_by, definition, estimated_resources
  FROM workflow_definitions
 WHERE tenant = $1 AND workflow_id = $2 AND deleted_at IS NULL

-- name: get_plan
SELECT plan
  FROM workflow_definitions
 WHERE tenant = $1 AND workflow_id = $2 AND deleted_at IS NULL

-- name: list
SELECT workflow_id, name, version, orchestration_pattern, cardinality(task_ids) AS task_count, created_at, updated_at,
       created_by
  FROM workflow_definitions
 WHERE tenant = $1 AND deleted_at IS NULL
   AND ($3::timestamptz IS NULL OR (created_at, workflow_id) < ($3, $4::uuid))
   AND ($5::text IS NULL OR name = $5)
   AND ($6::text IS NULL OR orchestration_pattern = $6)
 ORDER BY created_at DESC, workflow_id DESC
 LIMIT $2

-- name: lock
-- Against an execution that is being inserted, which takes the same row FOR SHARE.
SELECT true
  FROM workflow_definitions
 WHERE tenant = $1 AND workflow_id = $2 AND deleted_at IS NULL
   FOR UPDATE

-- name: open_execution
SELECT execution_id
  FROM workflow_executions
 WHERE tenant = $1 AND workflow_id = $2 AND status IN ('planning', 'executing', 'paused')
 LIMIT 1

-- name: delete
UPDATE workflow_definitions SET deleted_at = now(), updated_at = now()
 WHERE tenant = $1 AND workflow_id = $2
