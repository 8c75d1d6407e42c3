-- name: has
SELECT true
  FROM kernel_plans
 WHERE tenant = $1 AND plan_hash = $2

-- name: insert
INSERT INTO kernel_plans (tenant, plan_hash, plan)
VALUES ($1, $2, $3)
ON CONFLICT (tenant, plan_hash) DO NOTHING

-- name: get
SELECT plan
  FROM kernel_plans
 WHERE tenant = $1 AND plan_hash = $2
