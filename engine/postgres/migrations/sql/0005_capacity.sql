-- A row an open execution: what it holds of the engine's capacity, or waits for.
CREATE TABLE capacity_claims (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    waiting boolean NOT NULL,
    priority smallint NOT NULL,
    queued_at timestamptz NOT NULL,
    agents integer NOT NULL,
    cpu_micros bigint NOT NULL,
    memory_bytes bigint NOT NULL,
    PRIMARY KEY (tenant, execution_id),
    CONSTRAINT valid_priority CHECK (priority IN (0, 1, 2))
);
COMMENT ON COLUMN capacity_claims.priority IS '0 high, 1 normal, 2 low';
CREATE INDEX idx_claim_waiting ON capacity_claims (tenant, priority, queued_at, execution_id) WHERE waiting;

-- The sums of all tenants' claims, so that a start need not add them up. They stand under the tenant '*', which is no
-- tenant's name; spread over shards by connection, so that those who start and close at the same time do not queue for
-- one row. A shard alone means nothing and may be below zero.
CREATE TABLE capacity_usage (
    tenant text COLLATE "C" NOT NULL,
    shard integer NOT NULL,
    executions bigint NOT NULL,
    agents bigint NOT NULL,
    cpu_micros numeric NOT NULL,
    memory_bytes numeric NOT NULL,
    waiting_high bigint NOT NULL,
    waiting_normal bigint NOT NULL,
    waiting_low bigint NOT NULL,
    PRIMARY KEY (tenant, shard),
    CONSTRAINT of_the_engine CHECK (tenant = '*')
) WITH (fillfactor = 20);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['capacity_claims', 'capacity_usage'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant_isolation ON %I FOR ALL TO orchestrator_app '
            'USING (tenant = current_setting(''app.tenant'', true)) '
            'WITH CHECK (tenant = current_setting(''app.tenant'', true))', name);
        EXECUTE format(
            'CREATE POLICY maintenance ON %I FOR ALL TO orchestrator_maintenance USING (true) WITH CHECK (true)',
            name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
    END LOOP;
END $$;
GRANT SELECT, INSERT, DELETE ON capacity_claims TO orchestrator_app;
GRANT SELECT, INSERT, UPDATE ON capacity_usage TO orchestrator_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON capacity_claims TO orchestrator_maintenance;
GRANT SELECT, INSERT, UPDATE ON capacity_usage TO orchestrator_maintenance;
-- An execution that waited is started when its turn comes.
GRANT UPDATE (started_at, updated_at) ON workflow_executions TO orchestrator_maintenance;

-- Keeps the sums in the transaction that changes a claim.
CREATE FUNCTION count_capacity() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_tenant text := coalesce(current_setting('app.tenant', true), '');
    v_before integer := 0;
    v_after integer := 0;
    v_old capacity_claims;
    v_new capacity_claims;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        v_old := OLD;
        v_before := 1;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        v_new := NEW;
        v_after := 1;
    END IF;
    PERFORM set_config('app.tenant', '*', true);
    INSERT INTO capacity_usage AS u (
        tenant, shard, executions, agents, cpu_micros, memory_bytes, waiting_high, waiting_normal, waiting_low
    )
    SELECT '*', pg_backend_pid() % 32, coalesce(sum(c.sign) FILTER (WHERE NOT c.waiting), 0),
           coalesce(sum(c.sign * c.agents) FILTER (WHERE NOT c.waiting), 0),
           coalesce(sum(c.sign * c.cpu_micros::numeric) FILTER (WHERE NOT c.waiting), 0),
           coalesce(sum(c.sign * c.memory_bytes::numeric) FILTER (WHERE NOT c.waiting), 0),
           coalesce(sum(c.sign) FILTER (WHERE c.waiting AND c.priority = 0), 0),
           coalesce(sum(c.sign) FILTER (WHERE c.waiting AND c.priority = 1), 0),
           coalesce(sum(c.sign) FILTER (WHERE c.waiting AND c.priority = 2), 0)
      FROM (VALUES (-v_before, v_old.waiting, v_old.priority, v_old.agents, v_old.cpu_micros, v_old.memory_bytes),
                   (v_after, v_new.waiting, v_new.priority, v_new.agents, v_new.cpu_micros, v_new.memory_bytes))
           AS c (sign, waiting, priority, agents, cpu_micros, memory_bytes)
     WHERE c.sign <> 0
    ON CONFLICT (tenant, shard) DO UPDATE SET
        executions = u.executions + excluded.executions, agents = u.agents + excluded.agents,
        cpu_micros = u.cpu_micros + excluded.cpu_micros, memory_bytes = u.memory_bytes + excluded.memory_bytes,
        waiting_high = u.waiting_high + excluded.waiting_high,
        waiting_normal = u.waiting_normal + excluded.waiting_normal,
        waiting_low = u.waiting_low + excluded.waiting_low;
    PERFORM set_config('app.tenant', v_tenant, true);
    RETURN NULL;
END $$;
CREATE TRIGGER count_capacity AFTER INSERT OR UPDATE OR DELETE ON capacity_claims
    FOR EACH ROW EXECUTE FUNCTION count_capacity();

-- However an execution is closed, its share is free with the same commit.
CREATE FUNCTION free_capacity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM capacity_claims AS c WHERE c.tenant = NEW.tenant AND c.execution_id = NEW.execution_id;
    RETURN NULL;
END $$;
CREATE TRIGGER free_capacity AFTER UPDATE OF status ON workflow_executions FOR EACH ROW
    WHEN (NEW.status IN ('completed', 'failed', 'cancelled')
          AND OLD.status NOT IN ('completed', 'failed', 'cancelled'))
    EXECUTE FUNCTION free_capacity();

CREATE FUNCTION capacity_totals(
    OUT executions bigint, OUT agents bigint, OUT cpu_micros numeric, OUT memory_bytes numeric,
    OUT waiting_high bigint, OUT waiting_normal bigint, OUT waiting_low bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_tenant text := coalesce(current_setting('app.tenant', true), '');
BEGIN
    PERFORM set_config('app.tenant', '*', true);
    SELECT coalesce(sum(u.executions), 0), coalesce(sum(u.agents), 0), coalesce(sum(u.cpu_micros), 0),
           coalesce(sum(u.memory_bytes), 0), coalesce(sum(u.waiting_high), 0), coalesce(sum(u.waiting_normal), 0),
           coalesce(sum(u.waiting_low), 0)
      INTO executions, agents, cpu_micros, memory_bytes, waiting_high, waiting_normal, waiting_low
      FROM capacity_usage AS u
     WHERE u.tenant = '*';
    PERFORM set_config('app.tenant', v_tenant, true);
END $$;

-- Whether `p_times` executions of this size fit beside what runs.
CREATE FUNCTION capacity_fits(
    p_tenant text, p_times bigint, p_agents integer, p_cpu_micros bigint, p_memory_bytes bigint,
    p_executions_max bigint, p_agents_max bigint, p_cpu_micros_max numeric, p_memory_bytes_max numeric,
    p_tenant_executions_max bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    u record;
BEGIN
    u := capacity_totals();
    IF u.executions + p_times > p_executions_max
        OR u.agents + p_times * p_agents > p_agents_max
        OR u.cpu_micros + p_times * p_cpu_micros::numeric > p_cpu_micros_max
        OR u.memory_bytes + p_times * p_memory_bytes::numeric > p_memory_bytes_max
    THEN
        RETURN false;
    END IF;
    IF p_tenant_executions_max IS NULL THEN
        RETURN true;
    END IF;
    RETURN p_times + (SELECT count(*) FROM capacity_claims AS c WHERE c.tenant = p_tenant AND NOT c.waiting)
        <= p_tenant_executions_max;
END $$;

-- The row of a new execution, its first audit event and its claim, in one round trip that is the whole transaction.
-- `outcome`: planned, repeat (that execution is there already), no_workflow, queue_full.
--
-- It starts at once when nobody waits and it fits; else it waits. Far from the limits, starts go on side by side: as
-- many as there can be connections would fit. Near them they go one after the other, each seeing what the one before
-- has taken. The lock comes last, since it is held until the commit.
CREATE FUNCTION plan_execution(
    p_tenant text, p_execution_id uuid, p_workflow_id uuid, p_started_ms bigint, p_trace_id uuid,
    p_allow_concurrent boolean, p_request_hash text, p_started_by text, p_roles jsonb, p_input_data jsonb,
    p_options jsonb, p_launch text, p_metrics jsonb,
    p_priority smallint, p_agents integer, p_cpu_micros bigint, p_memory_bytes bigint,
    p_executions_max bigint, p_agents_max bigint, p_cpu_micros_max numeric, p_memory_bytes_max numeric,
    p_tenant_executions_max bigint, p_waiting_max bigint, p_plan_hash text,
    OUT outcome text, OUT status text, OUT started_at timestamptz, OUT waiting boolean, OUT waiting_count bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    c_lock constant bigint := hashtextextended('orchestrator/capacity', 0);
    u record;
    v_connections bigint := current_setting('max_connections')::bigint;
    v_now timestamptz;
BEGIN
    PERFORM set_config('app.tenant', p_tenant, true);
    outcome := 'repeat';
    IF EXISTS (SELECT FROM workflow_executions AS e WHERE e.tenant = p_tenant AND e.execution_id = p_execution_id) THEN
        RETURN;
    END IF;
    -- Keeps the definition from being deleted until the execution that uses it is there.
    PERFORM FROM workflow_definitions AS d
     WHERE d.tenant = p_tenant AND d.workflow_id = p_workflow_id AND d.deleted_at IS NULL
       FOR SHARE;
    IF NOT FOUND THEN
        outcome := 'no_workflow';
        RETURN;
    END IF;
    u := capacity_totals();
    waiting_count := u.waiting_high + u.waiting_normal + u.waiting_low;
    waiting := waiting_count > 0;
    IF p_priority = 2 AND waiting_count >= p_waiting_max THEN
        outcome := 'queue_full';
        RETURN;
    END IF;
    v_now := clock_timestamp();
    INSERT INTO workflow_executions AS e (
        tenant, execution_id, workflow_id, status, started_at, updated_at, trace_id, allow_concurrent, request_hash,
        started_by, roles, input_data, options, launch, performance_metrics, plan_hash, last_sequence
    ) VALUES (
        p_tenant, p_execution_id, p_workflow_id, 'planning', to_timestamp(p_started_ms / 1000.0::float8), v_now,
        p_trace_id, p_allow_concurrent, p_request_hash, p_started_by, p_roles, p_input_data, p_options, p_launch,
        p_metrics, p_plan_hash, 1
    )
    ON CONFLICT (tenant, execution_id) DO NOTHING
    RETURNING e.status, e.started_at INTO status, started_at;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    outcome := 'planned';
    IF NOT waiting THEN
        IF capacity_fits(
            p_tenant, v_connections, p_agents, p_cpu_micros, p_memory_bytes, p_executions_max, p_agents_max,
            p_cpu_micros_max, p_memory_bytes_max, p_tenant_executions_max)
        THEN
            PERFORM pg_advisory_xact_lock_shared(c_lock);
        ELSE
            PERFORM pg_advisory_xact_lock(c_lock);
            v_connections := 1;
        END IF;
        waiting := NOT capacity_fits(
            p_tenant, v_connections, p_agents, p_cpu_micros, p_memory_bytes, p_executions_max, p_agents_max,
            p_cpu_micros_max, p_memory_bytes_max, p_tenant_executions_max);
    END IF;
    INSERT INTO execution_events (
        tenant, execution_id, sequence, epoch, tick, event_type, occurred_at, recorded_at, payload
    ) VALUES (
        p_tenant, p_execution_id, 1, 1, 0, 'workflow.status_changed', v_now, v_now,
        CASE WHEN waiting
             THEN json_build_object('previous_status', NULL, 'new_status', 'planning', 'queued', true,
                                    'priority', (ARRAY['high', 'normal', 'low'])[p_priority + 1])
             ELSE json_build_object('previous_status', NULL, 'new_status', 'planning') END
    );
    INSERT INTO capacity_claims (
        tenant, execution_id, waiting, priority, queued_at, agents, cpu_micros, memory_bytes
    ) VALUES (
        p_tenant, p_execution_id, waiting, p_priority, v_now, p_agents, p_cpu_micros, p_memory_bytes
    );
END $$;

-- What the status of an execution adds to `execution_status`: its roles, and its place while it waits. `ahead` counts
-- the tenant's own only, and leaves aging out: what others have in the queue is not the tenant's to see.
CREATE FUNCTION execution_claim(
    p_tenant text, p_execution_id uuid, p_include_roles boolean,
    OUT roles jsonb, OUT waiting boolean, OUT priority smallint, OUT queued_at timestamptz, OUT ahead bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_own record;
BEGIN
    PERFORM set_config('app.tenant', p_tenant, true);
    IF p_include_roles THEN
        SELECT e.roles INTO roles
          FROM workflow_executions AS e
         WHERE e.tenant = p_tenant AND e.execution_id = p_execution_id;
    END IF;
    SELECT c.priority, c.queued_at INTO v_own
      FROM capacity_claims AS c
     WHERE c.tenant = p_tenant AND c.execution_id = p_execution_id AND c.waiting;
    waiting := FOUND;
    IF waiting THEN
        priority := v_own.priority;
        queued_at := v_own.queued_at;
        ahead := (
            SELECT count(*)
              FROM capacity_claims AS c
             WHERE c.tenant = p_tenant AND c.waiting
               AND (c.priority, c.queued_at, c.execution_id) < (v_own.priority, v_own.queued_at, p_execution_id));
    END IF;
END $$;

-- The engine's totals and one tenant's own numbers.
CREATE FUNCTION capacity_report(
    p_tenant text,
    OUT totals jsonb, OUT own jsonb, OUT statuses jsonb
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant', p_tenant, true);
    totals := to_jsonb(capacity_totals());
    SELECT jsonb_build_object(
               'executions', count(*) FILTER (WHERE NOT c.waiting),
               'agents', coalesce(sum(c.agents) FILTER (WHERE NOT c.waiting), 0),
               'cpu_micros', coalesce(sum(c.cpu_micros) FILTER (WHERE NOT c.waiting), 0),
               'memory_bytes', coalesce(sum(c.memory_bytes) FILTER (WHERE NOT c.waiting), 0),
               'waiting_high', count(*) FILTER (WHERE c.waiting AND c.priority = 0),
               'waiting_normal', count(*) FILTER (WHERE c.waiting AND c.priority = 1),
               'waiting_low', count(*) FILTER (WHERE c.waiting AND c.priority = 2))
      INTO own
      FROM capacity_claims AS c
     WHERE c.tenant = p_tenant;
    SELECT coalesce(jsonb_object_agg(s.status, s.n), '{}') INTO statuses
      FROM (SELECT e.status, count(*) AS n
              FROM workflow_executions AS e
             WHERE e.tenant = p_tenant AND e.status IN ('planning', 'executing', 'paused')
             GROUP BY e.status) AS s;
END $$;

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT p.oid::regprocedure::text FROM pg_proc AS p
         WHERE p.pronamespace = 'public'::regnamespace
           AND p.proname IN ('count_capacity', 'free_capacity', 'capacity_totals', 'capacity_fits', 'plan_execution',
                             'execution_claim', 'capacity_report')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO orchestrator_app, orchestrator_maintenance', name);
    END LOOP;
END $$;
