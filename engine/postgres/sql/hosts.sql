-- name: upsert
-- A host that is gone stays gone: its agents are bound elsewhere by now.
INSERT INTO agent_hosts AS h (
    tenant, host_id, types, capabilities, slots, pid, state, registered_at, last_seen, features,
    execution_id, agent_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (tenant, host_id) DO UPDATE SET
    types = excluded.types, capabilities = excluded.capabilities, slots = excluded.slots, pid = excluded.pid,
    state = excluded.state, features = excluded.features, last_seen = greatest(h.last_seen, excluded.last_seen),
    -- One of a pool does not know who has claimed it.
    execution_id = CASE WHEN excluded.execution_id = '' THEN h.execution_id ELSE excluded.execution_id END,
    agent_id = CASE WHEN excluded.execution_id = '' THEN h.agent_id ELSE excluded.agent_id END
 WHERE h.state = 'live'

-- name: gone
SELECT host_id
  FROM agent_hosts
 WHERE tenant = $1 AND host_id = ANY ($2::text[]) AND state = 'gone'
 ORDER BY host_id

-- name: live
SELECT host_id, types, capabilities, slots, pid, state, registered_at, last_seen, features, execution_id, agent_id,
       suspect_since, speed
  FROM agent_hosts
 WHERE tenant = $1 AND state = 'live' AND $2 = ANY (types) AND execution_id IS NULL
 ORDER BY registered_at, host_id
 LIMIT $3

-- name: live_for
SELECT host_id, types, capabilities, slots, pid, state, registered_at, last_seen, features, execution_id, agent_id,
       suspect_since, speed
  FROM agent_hosts
 WHERE tenant = $1 AND execution_id = $2 AND (state = 'live' OR $4)
 ORDER BY state DESC, registered_at DESC, host_id
 LIMIT $3

-- name: pooled
SELECT host_id, types, capabilities, slots, pid, state, registered_at, last_seen, features, execution_id, agent_id,
       suspect_since, speed
  FROM agent_hosts
 WHERE tenant = $1 AND execution_id = '' AND state = 'live' AND $2 = ANY (types)
   AND suspect_since IS NULL
 ORDER BY registered_at, host_id
 LIMIT $3

-- name: lock_agent
SELECT pg_advisory_xact_lock(hashtextextended('agent:' || $1 || ':' || $2 || ':' || $3, 0))

-- name: claim
UPDATE agent_hosts AS h SET execution_id = $3, agent_id = $4
 WHERE h.tenant = $1 AND h.host_id = $2 AND h.execution_id = '' AND h.state = 'live'
   AND NOT EXISTS (SELECT 1
                     FROM agent_hosts AS o
                    WHERE o.tenant = $1 AND o.execution_id = $3 AND o.agent_id = $4 AND o.state = 'live')
RETURNING h.host_id

-- name: mark_gone
UPDATE agent_hosts SET state = 'gone'
 WHERE tenant = $1 AND host_id = ANY ($2::text[]) AND state = 'live'
RETURNING host_id

-- name: page
SELECT host_id, types, capabilities, slots, pid, state, registered_at, last_seen, features, execution_id, agent_id,
       suspect_since, speed
  FROM agent_hosts
 WHERE tenant = $1
   AND ($3::text IS NULL OR host_id > $3)
   AND ($4::text IS NULL OR $4 = ANY (types))
   AND ($5::text IS NULL OR state = $5)
 ORDER BY host_id
 LIMIT $2

-- name: silent
SELECT tenant, host_id, types, capabilities, slots, pid, state, registered_at, last_seen, features, execution_id, agent_id,
       suspect_since, speed
  FROM agent_hosts
 WHERE state = 'live' AND last_seen < clock_timestamp() - make_interval(secs => $1)
 ORDER BY last_seen
 LIMIT $2
