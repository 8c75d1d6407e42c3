-- name: record
INSERT INTO operation_log (
    tenant, actor, roles, address, operation, subject_type, subject_id, outcome, request_id, details
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: list
SELECT id, actor, roles, address, operation, subject_type, subject_id, outcome, request_id, details, recorded_at
  FROM operation_log
 WHERE tenant = $1 AND ($3::bigint IS NULL OR id < $3)
 ORDER BY id DESC
 LIMIT $2
