-- What a host understands beyond the basic protocol. Hosts say so with every heartbeat; none is the safe answer.
ALTER TABLE agent_hosts ADD COLUMN features text[] NOT NULL DEFAULT '{}';
