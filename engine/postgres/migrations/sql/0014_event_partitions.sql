-- The audit log of executions in partitions by time: what is old goes as a table, not row by row.
--
-- The partitioned table has no unique index, since that would have to name `recorded_at`; each partition has one of
-- (tenant, execution_id, sequence). That no sequence comes twice in two partitions follows from where sequences come
-- from: docs/decisions/0021.

ALTER TABLE workflow_executions ADD COLUMN recorded_from timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE workflow_executions ALTER COLUMN recorded_from SET DEFAULT now();
COMMENT ON COLUMN workflow_executions.recorded_from IS
    'no event of it was recorded before: started_at is later for what has waited, and by another clock';
CREATE INDEX idx_execution_recorded_from ON workflow_executions (recorded_from);

ALTER TABLE execution_events RENAME TO execution_events_before;
ALTER TABLE execution_events_before RENAME CONSTRAINT execution_events_pkey TO execution_events_before_pkey;
CREATE TABLE execution_events (LIKE execution_events_before) PARTITION BY RANGE (recorded_at);
COMMENT ON TABLE execution_events IS 'the audit log; rows come from functions that hold the lock of the execution''s row';
CREATE TABLE execution_events_default PARTITION OF execution_events (PRIMARY KEY (tenant, execution_id, sequence))
    DEFAULT;
COMMENT ON TABLE execution_events_default IS 'what no partition was made for in time';
-- Serves asking for its newest row, and the clean-up by age.
CREATE INDEX idx_event_default_recorded_at ON execution_events_default (recorded_at);

REVOKE ALL ON execution_events, execution_events_before, execution_events_default FROM PUBLIC;
REVOKE ALL ON execution_events_before FROM orchestrator_app, orchestrator_maintenance;
REVOKE SELECT (tenant, execution_id) ON execution_events_before FROM orchestrator_maintenance;
GRANT SELECT, INSERT ON execution_events TO orchestrator_app;
GRANT SELECT ON execution_events TO orchestrator_maintenance;
GRANT SELECT, DELETE ON execution_events_default TO orchestrator_maintenance;

-- Through the partitioned table its policies and grants count; a partition has its own for whoever names it.
CREATE FUNCTION secure_event_table(p_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', p_name);
    EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', p_name);
    EXECUTE format(
        'CREATE POLICY tenant_isolation ON public.%I FOR ALL TO orchestrator_app '
        'USING (tenant = current_setting(''app.tenant'', true)) '
        'WITH CHECK (tenant = current_setting(''app.tenant'', true))', p_name);
    EXECUTE format(
        'CREATE POLICY maintenance ON public.%I FOR ALL TO orchestrator_maintenance USING (true) WITH CHECK (true)',
        p_name);
END $$;
SELECT secure_event_table('execution_events'), secure_event_table('execution_events_default');

CREATE FUNCTION event_partitions(OUT name text, OUT from_at timestamptz, OUT until_at timestamptz)
RETURNS SETOF record LANGUAGE sql STABLE SET timezone = 'UTC' AS $$
    SELECT c.relname::text,
           (regexp_match(b.bounds, 'FROM \(''([^'']+)''\)'))[1]::timestamptz,
           (regexp_match(b.bounds, 'TO \(''([^'']+)''\)'))[1]::timestamptz
      FROM pg_catalog.pg_inherits AS i
      JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS b (bounds)
     WHERE i.inhparent = 'public.execution_events'::regclass AND b.bounds <> 'DEFAULT'
$$;

-- The maintenance role decides and the owner acts: only an owner makes and drops tables, and the owner, who is bound by
-- row-level security, sees no row. A lock that does not come soon is given up: ticks would queue behind who waits for it.

CREATE FUNCTION attach_event_partition(p_from timestamptz, p_until timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC'
SET lock_timeout = '500ms' AS $$
DECLARE
    v_name text := 'execution_events_' || to_char(p_from, 'YYYYMMDD');
BEGIN
    -- Attached, not created in place: that would lock out all readers.
    EXECUTE format(
        'CREATE TABLE public.%I (LIKE public.execution_events, PRIMARY KEY (tenant, execution_id, sequence))', v_name);
    PERFORM public.secure_event_table(v_name);
    EXECUTE format('ALTER TABLE public.execution_events ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                   v_name, p_from, p_until);
    RETURN v_name;
END $$;

-- From where the partitions end, or, when they have run out, from the next day on: what comes until then stays in the
-- default partition, and so does what is in it already.
CREATE FUNCTION prepare_event_partitions(p_days integer, p_ahead integer) RETURNS integer
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    v_until timestamptz := clock_timestamp() + make_interval(days => p_days * p_ahead);
    v_from timestamptz;
    v_made integer := 0;
BEGIN
    SELECT max(p.until_at) INTO v_from FROM event_partitions() AS p;
    v_from := greatest(
        CASE WHEN v_from > clock_timestamp() THEN v_from
             ELSE date_trunc('day', clock_timestamp()) + interval '1 day' END,
        (SELECT date_trunc('day', max(d.recorded_at)) + interval '1 day'
           FROM execution_events_default AS d
          WHERE d.recorded_at < v_until + make_interval(days => p_days)));
    WHILE v_from < v_until LOOP
        PERFORM attach_event_partition(v_from, v_from + make_interval(days => p_days));
        v_from := v_from + make_interval(days => p_days);
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END $$;

-- An empty table for what is kept of an old partition.
CREATE FUNCTION begin_kept_events(p_name text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_kept text := p_name || '_kept';
BEGIN
    IF NOT EXISTS (SELECT FROM public.event_partitions() AS p WHERE p.name = p_name) OR p_name LIKE '%\_kept' THEN
        RAISE EXCEPTION 'not a partition to replace: %', p_name;
    END IF;
    EXECUTE format(
        'CREATE TABLE public.%I (LIKE public.execution_events, PRIMARY KEY (tenant, execution_id, sequence))', v_kept);
    PERFORM public.secure_event_table(v_kept);
    EXECUTE format('GRANT INSERT ON public.%I TO orchestrator_maintenance', v_kept);
    RETURN v_kept;
END $$;

-- As the maintenance role: copies the events of executions that are still there.
CREATE FUNCTION keep_events(p_name text, p_from timestamptz, p_until timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'INSERT INTO public.%I SELECT v.* FROM workflow_executions AS e '
        'JOIN execution_events AS v ON v.tenant = e.tenant AND v.execution_id = e.execution_id '
        'WHERE e.recorded_from < $2 + interval ''1 hour'' AND v.recorded_at >= $1 AND v.recorded_at < $2',
        begin_kept_events(p_name)) USING p_from, p_until;
END $$;

-- Drops an old partition; what is kept of it, if anything is, takes its place.
CREATE FUNCTION drop_event_partition(p_name text, p_kept boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC'
SET lock_timeout = '500ms' AS $$
DECLARE
    v_old record;
    v_kept text := p_name || '_kept';
BEGIN
    SELECT * INTO v_old FROM public.event_partitions() AS p WHERE p.name = p_name;
    IF NOT FOUND OR v_old.until_at > clock_timestamp() - interval '1 day' THEN
        RAISE EXCEPTION 'not an old partition: %', p_name;
    END IF;
    EXECUTE format('ALTER TABLE public.execution_events DETACH PARTITION public.%I', p_name);
    IF p_kept THEN
        EXECUTE format('REVOKE ALL ON public.%I FROM orchestrator_maintenance', v_kept);
        EXECUTE format('ALTER TABLE public.execution_events ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                       v_kept, v_old.from_at, v_old.until_at);
    END IF;
    EXECUTE format('DROP TABLE public.%I', p_name);
END $$;

-- A page of an execution's events. The execution says when they were recorded, so that few partitions are looked at;
-- and since sequences have no gap, it also says how many there must be. Where that is not what is found (a hook that ran
-- long after the end, a server's clock that was set back), all partitions are asked.
CREATE FUNCTION execution_facts(p_tenant text, p_execution_id uuid, p_after bigint, p_limit bigint)
RETURNS SETOF execution_events LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_from timestamptz;
    v_until timestamptz;
    v_expected bigint;
    v_found bigint;
BEGIN
    SELECT e.recorded_from, coalesce(e.completed_at + interval '1 day', 'infinity'),
           least(p_limit, e.last_sequence - p_after)
      INTO v_from, v_until, v_expected
      FROM workflow_executions AS e
     WHERE e.tenant = p_tenant AND e.execution_id = p_execution_id;
    IF NOT FOUND OR v_expected <= 0 THEN
        RETURN;
    END IF;
    SELECT count(*) INTO v_found
      FROM execution_events AS v
     WHERE v.tenant = p_tenant AND v.execution_id = p_execution_id
       AND v.sequence > p_after AND v.sequence <= p_after + v_expected
       AND v.recorded_at >= v_from AND v.recorded_at <= v_until;
    IF v_found < v_expected THEN
        v_from := '-infinity';
        v_until := 'infinity';
    END IF;
    RETURN QUERY
        SELECT *
          FROM execution_events AS v
         WHERE v.tenant = p_tenant AND v.execution_id = p_execution_id
           AND v.sequence > p_after AND v.sequence <= p_after + v_expected
           AND v.recorded_at >= v_from AND v.recorded_at <= v_until
         ORDER BY v.sequence;
END $$;

-- The first facts of an execution, for its first tick's commit. A function, so that no other commit plans it.
CREATE FUNCTION earlier_facts(p_tenant text, p_execution_id uuid, p_count bigint) RETURNS json
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT json_agg(json_build_object(
                   'sequence', v.sequence, 'epoch', v.epoch, 'event_type', v.event_type, 'timestamp', v.occurred_at,
                   'recorded_at', v.recorded_at, 'payload', v.payload) ORDER BY v.sequence)
          FROM execution_facts(p_tenant, p_execution_id, 0, p_count) AS v);
END $$;

DO $$
DECLARE
    name text;
    v_from timestamptz;
BEGIN
    FOR name IN
        SELECT p.oid::regprocedure::text FROM pg_proc AS p
         WHERE p.pronamespace = 'public'::regnamespace
           AND p.proname IN ('secure_event_table', 'event_partitions', 'attach_event_partition',
                             'prepare_event_partitions', 'begin_kept_events', 'keep_events', 'drop_event_partition',
                             'execution_facts', 'earlier_facts')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name);
    END LOOP;
    GRANT EXECUTE ON FUNCTION execution_facts, earlier_facts TO orchestrator_app, orchestrator_maintenance;
    GRANT EXECUTE ON FUNCTION event_partitions, attach_event_partition, prepare_event_partitions, begin_kept_events,
        keep_events, drop_event_partition TO orchestrator_maintenance;

    -- What is there becomes the first partition as it stands. The owner, who migrates, sees its rows meanwhile.
    ALTER TABLE execution_events_before NO FORCE ROW LEVEL SECURITY;
    SELECT date_trunc('day', greatest(max(b.recorded_at), clock_timestamp()), 'UTC') INTO v_from
      FROM execution_events_before AS b;
    IF EXISTS (SELECT FROM execution_events_before) THEN
        v_from := v_from + interval '24 hours';
        ALTER TABLE execution_events_before FORCE ROW LEVEL SECURITY;
        EXECUTE format(
            'ALTER TABLE execution_events ATTACH PARTITION execution_events_before FOR VALUES FROM (%L) TO (%L)',
            '-infinity', v_from);
    ELSE
        DROP TABLE execution_events_before;
    END IF;
    -- For the time until the engine makes its own.
    FOR n IN 0..1 LOOP
        PERFORM attach_event_partition(v_from + n * interval '168 hours', v_from + (n + 1) * interval '168 hours');
    END LOOP;
END $$;
