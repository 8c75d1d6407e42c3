-- name: describe
-- What is not in the definition of these tasks. An element's event and additional dependencies are its group's.
SELECT w.task_id, g.parent, g.element, gr.items_ref, v.event_id, v.payload,
       CASE WHEN g.element IS NULL THEN g.body
            ELSE (SELECT x.body
                    FROM execution_growth AS x
                   WHERE x.tenant = $1 AND x.execution_id = $2 AND x.task_id = g.parent) END AS body,
       (SELECT array_agg(x.waits_for ORDER BY x.waits_for)
          FROM execution_waits AS x
         WHERE x.tenant = $1 AND x.execution_id = $2 AND x.task_id = s.subject) AS waits_for
  FROM unnest($3::text[]) AS w (task_id)
  LEFT JOIN LATERAL (
       SELECT x.parent, x.element, x.body
         FROM execution_growth AS x
        WHERE x.tenant = $1 AND x.execution_id = $2 AND x.task_id = w.task_id
        LIMIT 1) AS g ON true
 CROSS JOIN LATERAL (SELECT CASE WHEN g.element IS NULL THEN w.task_id ELSE g.parent END AS subject) AS s
  LEFT JOIN LATERAL (
       SELECT x.items_ref
         FROM execution_groups AS x
        WHERE x.tenant = $1 AND x.execution_id = $2 AND x.task_id = g.parent AND g.element IS NOT NULL
        LIMIT 1) AS gr ON true
  LEFT JOIN LATERAL (
       SELECT x.event_id, x.payload
         FROM external_events AS x
        WHERE x.tenant = $1 AND x.execution_id = $2 AND x.task_id = s.subject
        LIMIT 1) AS v ON true

-- name: event_payloads
SELECT event_id, payload
  FROM external_events
 WHERE tenant = $1 AND execution_id = $2 AND event_id = ANY ($3::text[])

-- name: cached
SELECT w.task_id, c.result, c.encoding, c.size_bytes, c.body
  FROM unnest($2::text[], $3::text[]) AS w (task_id, key)
  JOIN result_cache AS c ON c.tenant = $1 AND c.key = w.key
   AND c.created_at > clock_timestamp() - make_interval(secs => $4::float8 * 86400)

-- name: remember_keys
INSERT INTO reuse_keys (tenant, execution_id, task_id, key)
SELECT $1, $2, w.task_id, w.key
  FROM unnest($3::text[], $4::text[]) AS w (task_id, key)
ON CONFLICT (tenant, execution_id, task_id) DO UPDATE SET key = excluded.key

-- name: forget_cached
DELETE FROM result_cache AS c
 USING (SELECT tenant, key
          FROM result_cache
         WHERE tenant = $1 AND created_at < clock_timestamp() - make_interval(secs => $2::float8 * 86400)
         ORDER BY created_at
         LIMIT $3
           FOR UPDATE SKIP LOCKED) AS old
 WHERE c.tenant = old.tenant AND c.key = old.key
