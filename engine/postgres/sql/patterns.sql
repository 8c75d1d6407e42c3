-- name: insert
-- As many as a tenant may have; two at the same time may go one or two over, which harms nothing.
INSERT INTO workflow_patterns (
    tenant, name, version, description, coordination_logic, configuration_schema, content_hash, created_by
)
SELECT $1, $2, $3, $4, $5, $6, $7, $8
 WHERE (SELECT count(*) FROM workflow_patterns WHERE tenant = $1) < $9
ON CONFLICT (tenant, name, version) DO NOTHING
RETURNING pattern_id

-- name: find
SELECT pattern_id, content_hash
  FROM workflow_patterns
 WHERE tenant = $1 AND name = $2 AND version = $3

-- name: get
SELECT pattern_id, name, version, description, coordination_logic, configuration_schema, created_at, created_by
  FROM workflow_patterns
 WHERE tenant = $1 AND name = $2 AND ($3::text IS NULL OR version = $3)
 ORDER BY position DESC
 LIMIT 1

-- name: list
SELECT pattern_id, name, version, description
  FROM workflow_patterns
 WHERE tenant = $1 AND ($3::text IS NULL OR (name, version) > ($3, $4::text))
 ORDER BY name, version
 LIMIT $2
