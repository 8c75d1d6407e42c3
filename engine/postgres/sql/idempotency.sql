-- name: claim
INSERT INTO idempotency_keys (tenant, operation, key, request_hash)
VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant, operation, key) DO NOTHING

-- name: find
SELECT request_hash
  FROM idempotency_keys
 WHERE tenant = $1 AND operation = $2 AND key = $3
