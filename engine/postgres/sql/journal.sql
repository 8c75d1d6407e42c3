-- name: commit_tick
-- One round trip and one transaction: the function names the tenant itself.
SELECT *
  FROM commit_tick($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
                   $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36)

-- name: deltas
SELECT tick, delta
  FROM tick_journal
 WHERE tenant = $1 AND execution_id = $2 AND tick = ANY ($3::bigint[])
 ORDER BY tick
