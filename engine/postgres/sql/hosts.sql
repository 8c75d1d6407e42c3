-- name: upsert
-- A host that is gone stays gone: its agents are bound elsewhere by now.
INSERT INTO agent_hosts AS h (
    tenant, host_id, types, capabilities, slots, pid, state, registered_at, last_seen, features)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant, host_id) DO UPDATE SET
    types = excluded.types, capabilities = excluded.capabilities, slots = excluded.slots, pid = excluded.pid,
    state = excluded.state, features = excluded.features, last_seen = greatest(h.last_seen, excluded.last_seen)
 WHERE h.state = 'live'

-- name: gone
SELECT host_id
  FROM agent_hosts
 WHERE tenant = $1 AND host_id = ANY ($2::text[]) AND state = 'gone'
 ORDER BY host_id

-- name: live
SELECT host_id, types, capabilities, slots, pid, state, registered_at, last_seen, features
  FROM agent_hosts
 WHERE tenant = $1 AND state = 'live' AND $2 = ANY (types)
 ORDER BY registered_at, host_id
 LIMIT $3

-- name: mark_gone
UPDATE agent_hosts SET state = 'gone'
 WHERE tenant = $1 AND host_id = ANY ($2::text[]) AND state = 'live'
RETURNING host_id

-- name: page
SELECT host_id, types, capabilities, slots, pid, state, registered_at, last_seen, features
  FROM agent_hosts
 WHERE tenant = $1
   AND ($3::text IS NULL OR host_id > $3)
   AND ($4::text IS NULL OR $4 = ANY (types))
   AND ($5::text IS NULL OR state = $5)
 ORDER BY host_id
 LIMIT $2

-- name: silent
SELECT tenant, host_id, types, capabilities, slots, pid, state, registered_at, last_seen, features
  FROM agent_hosts
 WHERE state = 'live' AND last_seen < clock_timestamp() - make_interval(secs => $1)
 ORDER BY last_seen
 LIMIT $2
