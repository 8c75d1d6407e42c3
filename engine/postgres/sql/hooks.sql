-- name: insert
INSERT INTO workflow_hooks AS h (
    tenant, name, description, trigger, event_pattern, action_type, action_command, action_function, action_args,
    action_secrets, mode, on_error, priority, enabled, timeout_seconds, retry_policy, created_by
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (tenant, name) DO NOTHING
RETURNING h.*

-- name: count
SELECT count(*)
  FROM workflow_hooks
 WHERE tenant = $1

-- name: get
SELECT *
  FROM workflow_hooks
 WHERE tenant = $1 AND hook_id = $2

-- name: list
SELECT *
  FROM workflow_hooks
 WHERE tenant = $1
   AND ($3::timestamptz IS NULL OR (created_at, hook_id) > ($3, $4::uuid))
   AND ($5::text IS NULL OR trigger = $5)
   AND ($6::boolean IS NULL OR enabled = $6)
 ORDER BY created_at, hook_id
 LIMIT $2

-- name: update
-- Only as it was when the change was made of it. A changed hook begins with a closed circuit.
UPDATE workflow_hooks SET
    name = $4, description = $5, trigger = $6, event_pattern = $7, action_type = $8, action_command = $9,
    action_function = $10, action_args = $11, action_secrets = $12, mode = $13, on_error = $14, priority = $15,
    enabled = $16, timeout_seconds = $17, retry_policy = $18, updated_at = clock_timestamp(),
    consecutive_failures = 0, circuit_opened_at = NULL, circuit_openings = 0
 WHERE tenant = $1 AND hook_id = $2 AND updated_at = $3
RETURNING *

-- name: enable
UPDATE workflow_hooks SET
    enabled = $3, updated_at = clock_timestamp(), consecutive_failures = 0, circuit_opened_at = NULL,
    circuit_openings = 0
 WHERE tenant = $1 AND hook_id = $2
RETURNING *

-- name: delete
DELETE FROM workflow_hooks
 WHERE tenant = $1 AND hook_id = $2
RETURNING hook_id

-- name: changed
INSERT INTO hook_switches AS s (tenant, revision) VALUES ($1, 1)
ON CONFLICT (tenant) DO UPDATE SET revision = s.revision + 1, updated_at = clock_timestamp()

-- name: switch
SELECT enabled, revision
  FROM hook_switches
 WHERE tenant = $1

-- name: set_switch
INSERT INTO hook_switches AS s (tenant, enabled, revision) VALUES ($1, $2, 1)
ON CONFLICT (tenant) DO UPDATE SET enabled = $2, revision = s.revision + 1, updated_at = clock_timestamp()

-- name: rules
SELECT hook_id, name, trigger, event_pattern, mode, priority
  FROM workflow_hooks
 WHERE tenant = $1 AND enabled
 ORDER BY priority, created_at, hook_id

-- name: runnable
SELECT *
  FROM workflow_hooks
 WHERE tenant = $1 AND hook_id = ANY ($2::uuid[])

-- name: workflow_name
-- Also of one that is deleted: executions of it go on.
SELECT name
  FROM workflow_definitions
 WHERE tenant = $1 AND workflow_id = $2

-- name: executions
SELECT execution_id, hook_id, workflow_execution_id, status, output, error_message, duration_ms, attempts, trigger,
       event_matched, executed_at
  FROM hook_executions
 WHERE tenant = $1
   AND ($3::timestamptz IS NULL OR (executed_at, execution_id) < ($3, $4::uuid))
   AND ($5::uuid IS NULL OR hook_id = $5)
   AND ($6::uuid IS NULL OR workflow_execution_id = $6)
   AND ($7::text IS NULL OR status = $7)
 ORDER BY executed_at DESC, execution_id DESC
 LIMIT $2

-- name: skipped
UPDATE workflow_hooks SET skipped_executions = skipped_executions + 1
 WHERE tenant = $1 AND hook_id = ANY ($2::uuid[])

-- name: deliver
-- In the tick's own transaction.
INSERT INTO hook_deliveries (tenant, execution_id, tick, position, band, entry, due_at)
SELECT $1, $2, $3, d.position, d.band, d.entry, clock_timestamp() + make_interval(secs => $7)
  FROM unnest($4::integer[], $5::smallint[], $6::text::json[]) AS d (position, band, entry)
ON CONFLICT DO NOTHING

-- name: claim
-- Not even by who has it: its news may have come twice.
UPDATE hook_deliveries AS d SET
    claimed_by = $5, claimed_until = clock_timestamp() + make_interval(secs => $6),
    due_at = clock_timestamp() + make_interval(secs => $6), claims = d.claims + 1
  FROM unnest($2::uuid[], $3::bigint[], $4::integer[]) AS k (execution_id, tick, position)
 WHERE d.tenant = $1 AND d.execution_id = k.execution_id AND d.tick = k.tick AND d.position = k.position
   AND (d.claimed_until IS NULL OR d.claimed_until < clock_timestamp())
RETURNING d.execution_id, d.tick, d.position, d.entry, d.claims

-- name: renew
UPDATE hook_deliveries AS d SET
    claimed_until = clock_timestamp() + make_interval(secs => $6),
    due_at = clock_timestamp() + make_interval(secs => $6)
  FROM unnest($2::uuid[], $3::bigint[], $4::integer[]) AS k (execution_id, tick, position)
 WHERE d.tenant = $1 AND d.execution_id = k.execution_id AND d.tick = k.tick AND d.position = k.position
   AND d.claimed_by = $5

-- name: release
UPDATE hook_deliveries SET claimed_until = NULL, claimed_by = NULL, due_at = clock_timestamp(), claims = claims - 1
 WHERE tenant = $1 AND claimed_by = $2

-- name: finish
DELETE FROM hook_deliveries AS d
 USING unnest($2::uuid[], $3::bigint[], $4::integer[]) AS k (execution_id, tick, position)
 WHERE d.tenant = $1 AND d.execution_id = k.execution_id AND d.tick = k.tick AND d.position = k.position

-- name: recorded
SELECT execution_id
  FROM hook_executions
 WHERE tenant = $1 AND execution_id = ANY ($2::uuid[])

-- name: record
SELECT recorded, switched_off, last_sequence
  FROM record_hook_runs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::text::json[], $16, $17, $18)

-- name: overdue
-- Across tenants: entries whose news got lost, or whose worker died. Not again at once.
UPDATE hook_deliveries AS d SET due_at = clock_timestamp() + make_interval(secs => $2)
  FROM (SELECT tenant, execution_id, tick, position
          FROM hook_deliveries
         WHERE due_at < clock_timestamp()
         ORDER BY due_at
         LIMIT $1
           FOR UPDATE SKIP LOCKED) AS late
 WHERE d.tenant = late.tenant AND d.execution_id = late.execution_id AND d.tick = late.tick
   AND d.position = late.position
RETURNING d.tenant, d.execution_id, d.tick, d.position, d.band
