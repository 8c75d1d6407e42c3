-- name: commit_tick
-- One round trip and one transaction: the function names the tenant itself. Long arrays come as text, see
-- `engine.postgres.literals`. With the first tick come the facts that were there before it: they are published with it.
SELECT c.*,
       CASE WHEN $3::bigint = 1 AND c.outcome = 'own'
            THEN earlier_facts($1, $2, c.last_sequence - cardinality($13::text::text[]))
       END AS earlier
  FROM commit_tick($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::text::text[], $14::text::bigint[],
                   $15::text::json[], $16::text::text[], $17::text::text[], $18::text::boolean[],
                   $19::text::integer[], $20::text::text[], $21::text::bigint[], $22::text::bigint[],
                   $23::text::bigint[], $24::text::json[], $25::text::text[], $26::text::json[], $27, $28, $29, $30,
                   $31, $32, $33, $34, $35, $36) AS c

-- name: commit_tick_and_deliver
-- The same for a tick that sets hooks off, whose entries are stored with it, in one round trip too.
WITH c AS MATERIALIZED (
    SELECT *
      FROM commit_tick($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::text::text[], $14::text::bigint[],
                       $15::text::json[], $16::text::text[], $17::text::text[], $18::text::boolean[],
                       $19::text::integer[], $20::text::text[], $21::text::bigint[], $22::text::bigint[],
                       $23::text::bigint[], $24::text::json[], $25::text::text[], $26::text::json[], $27, $28, $29, $30,
                       $31, $32, $33, $34, $35, $36)
), delivered AS (
    INSERT INTO hook_deliveries (tenant, execution_id, tick, position, band, entry, due_at)
    SELECT $1, $2, $3, d.position, d.band, d.entry, clock_timestamp() + make_interval(secs => $40)
      FROM c
     CROSS JOIN unnest($37::integer[], $38::smallint[], $39::text::json[]) AS d (position, band, entry)
     WHERE c.outcome = 'own'
    ON CONFLICT DO NOTHING
)
SELECT c.*,
       CASE WHEN $3::bigint = 1 AND c.outcome = 'own'
            THEN earlier_facts($1, $2, c.last_sequence - cardinality($13::text::text[]))
       END AS earlier
  FROM c

-- name: deltas
SELECT tick, delta
  FROM tick_journal
 WHERE tenant = $1 AND execution_id = $2 AND tick = ANY ($3::bigint[])
 ORDER BY tick

-- name: write_growth
SELECT write_growth($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
