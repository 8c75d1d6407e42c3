-- Graphs that change while they run. Rows that a tick writes have no foreign keys, like its others.

CREATE TABLE execution_growth (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    tick bigint NOT NULL,
    position integer NOT NULL,
    parent text COLLATE "C" NOT NULL,
    element integer,
    body json,
    PRIMARY KEY (tenant, execution_id, task_id)
);
COMMENT ON TABLE execution_growth IS 'tasks that are not in the definition, in the order of (tick, position)';
COMMENT ON COLUMN execution_growth.parent IS 'the for_each task of an element; the task whose result added a spawned one';
COMMENT ON COLUMN execution_growth.body IS 'of a spawned task, as tasks stand in definitions; NULL for an element';

CREATE TABLE execution_groups (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    size integer NOT NULL,
    items_ref text,
    PRIMARY KEY (tenant, execution_id, task_id)
);
COMMENT ON TABLE execution_groups IS 'for_each tasks: their result is the list of their elements'' results';

CREATE TABLE execution_waits (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    waits_for text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, execution_id, task_id, waits_for)
);
COMMENT ON TABLE execution_waits IS 'dependencies that spawned tasks gave to tasks that were there before';

CREATE TABLE external_events (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    event_type text NOT NULL,
    payload json NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    task_id text COLLATE "C",
    PRIMARY KEY (tenant, execution_id, event_id)
);
COMMENT ON COLUMN external_events.task_id IS 'whom it set off';
CREATE INDEX idx_external_event_task ON external_events (tenant, execution_id, task_id) WHERE task_id IS NOT NULL;

CREATE TABLE reuse_keys (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, execution_id, task_id)
);
COMMENT ON TABLE reuse_keys IS 'under which key a running task''s result will be kept';

CREATE TABLE result_cache (
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    result json,
    encoding text,
    size_bytes bigint,
    body bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, key)
);
COMMENT ON TABLE result_cache IS 'results of tasks with reuse, by the hash of all that their agents got';
COMMENT ON COLUMN result_cache.body IS 'a large result, as in payloads; a copy, so that it outlives its execution';
ALTER TABLE result_cache ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX idx_result_cache_age ON result_cache (tenant, created_at);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'execution_growth', 'execution_groups', 'execution_waits', 'external_events', 'reuse_keys', 'result_cache'
    ] LOOP
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

-- What is dropped when an execution goes back to a checkpoint is deleted: the audit log says that it was there.
GRANT SELECT, INSERT, DELETE ON execution_growth, execution_groups, execution_waits TO orchestrator_app;
GRANT DELETE ON execution_tasks TO orchestrator_app;
GRANT SELECT, INSERT ON external_events TO orchestrator_app;
GRANT UPDATE (task_id) ON external_events TO orchestrator_app;
GRANT SELECT, INSERT ON reuse_keys TO orchestrator_app;
GRANT UPDATE (key) ON reuse_keys TO orchestrator_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON result_cache TO orchestrator_app;
GRANT SELECT (tenant, execution_id), DELETE ON
    execution_growth, execution_groups, execution_waits, external_events, reuse_keys TO orchestrator_maintenance;
GRANT SELECT (tenant, key, created_at), DELETE ON result_cache TO orchestrator_maintenance;

-- What a tick changes in the graph, in the transaction of its commit.
CREATE FUNCTION write_growth(
    p_tenant text, p_execution_id uuid, p_tick bigint,
    p_rewound boolean, p_dropped text[], p_again text[],
    p_ids text[], p_parents text[], p_bodies json[],
    p_blocked text[], p_blockers text[],
    p_groups text[], p_sizes integer[], p_items text[],
    p_event_ids text[], p_event_types text[], p_event_ms bigint[], p_payloads json[],
    p_taken_ids text[], p_taken_by text[],
    p_reusable text[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_rewound THEN
        -- Groups whose elements are dropped, and empty ones that run again, are groups no more.
        DELETE FROM execution_groups AS g
         WHERE g.tenant = p_tenant AND g.execution_id = p_execution_id
           AND (g.task_id = ANY (p_dropped)
                OR (g.size = 0 AND g.task_id = ANY (p_again))
                OR g.task_id IN (SELECT x.parent
                                   FROM execution_growth AS x
                                  WHERE x.tenant = p_tenant AND x.execution_id = p_execution_id
                                    AND x.task_id = ANY (p_dropped) AND x.element IS NOT NULL));
        DELETE FROM execution_tasks
         WHERE tenant = p_tenant AND execution_id = p_execution_id AND task_id = ANY (p_dropped);
        DELETE FROM execution_growth
         WHERE tenant = p_tenant AND execution_id = p_execution_id AND task_id = ANY (p_dropped);
        DELETE FROM execution_waits
         WHERE tenant = p_tenant AND execution_id = p_execution_id
           AND (waits_for = ANY (p_dropped) OR task_id = ANY (p_dropped));
        -- What a task took that runs again, it may take again.
        UPDATE external_events AS v SET task_id = NULL
         WHERE v.tenant = p_tenant AND v.execution_id = p_execution_id AND v.task_id IS NOT NULL
           AND NOT EXISTS (SELECT FROM execution_tasks AS t
                            WHERE t.tenant = p_tenant AND t.execution_id = p_execution_id
                              AND t.task_id = v.task_id AND t.state = 'completed');
    END IF;
    IF cardinality(p_ids) > 0 THEN
        INSERT INTO execution_growth (tenant, execution_id, task_id, tick, position, parent, body)
        SELECT p_tenant, p_execution_id, c.id, p_tick, c.n, c.parent, c.body
          FROM unnest(p_ids, p_parents, p_bodies) WITH ORDINALITY AS c (id, parent, body, n);
    END IF;
    IF cardinality(p_blocked) > 0 THEN
        INSERT INTO execution_waits (tenant, execution_id, task_id, waits_for)
        SELECT p_tenant, p_execution_id, c.blocked, c.blocker
          FROM unnest(p_blocked, p_blockers) AS c (blocked, blocker)
        ON CONFLICT DO NOTHING;
    END IF;
    IF cardinality(p_groups) > 0 THEN
        INSERT INTO execution_groups AS g (tenant, execution_id, task_id, size, items_ref)
        SELECT p_tenant, p_execution_id, c.id, c.size, c.items
          FROM unnest(p_groups, p_sizes, p_items) AS c (id, size, items)
        ON CONFLICT (tenant, execution_id, task_id) DO NOTHING;
        INSERT INTO execution_growth (tenant, execution_id, task_id, tick, position, parent, element)
        SELECT p_tenant, p_execution_id, c.id || '[' || n || ']', p_tick,
               cardinality(p_ids) + 1 + row_number() OVER (ORDER BY c.ordinal, n), c.id, n
          FROM unnest(p_groups, p_sizes) WITH ORDINALITY AS c (id, size, ordinal)
         CROSS JOIN LATERAL generate_series(0, c.size - 1) AS n;
    END IF;
    IF cardinality(p_event_ids) > 0 THEN
        INSERT INTO external_events (tenant, execution_id, event_id, event_type, payload, occurred_at)
        SELECT p_tenant, p_execution_id, c.id, c.type, c.payload, to_timestamp(c.at_ms / 1000.0::float8)
          FROM unnest(p_event_ids, p_event_types, p_event_ms, p_payloads) AS c (id, type, at_ms, payload)
        ON CONFLICT DO NOTHING;
    END IF;
    IF cardinality(p_taken_ids) > 0 THEN
        UPDATE external_events AS v SET task_id = c.task_id
          FROM unnest(p_taken_ids, p_taken_by) AS c (event_id, task_id)
         WHERE v.tenant = p_tenant AND v.execution_id = p_execution_id AND v.event_id = c.event_id;
    END IF;
    IF cardinality(p_reusable) > 0 THEN
        INSERT INTO result_cache (tenant, key, result, encoding, size_bytes, body)
        SELECT DISTINCT ON (k.key) p_tenant, k.key, t.result, p.encoding, p.size_bytes, p.body
          FROM reuse_keys AS k
          JOIN execution_tasks AS t ON t.tenant = p_tenant AND t.execution_id = p_execution_id
                                   AND t.task_id = k.task_id AND t.state = 'completed'
          LEFT JOIN payloads AS p ON p.tenant = p_tenant AND p.execution_id = p_execution_id
                                 AND p.reference = t.result_ref
         WHERE k.tenant = p_tenant AND k.execution_id = p_execution_id AND k.task_id = ANY (p_reusable)
           AND (t.result_ref IS NULL OR p.body IS NOT NULL)
        ON CONFLICT (tenant, key) DO UPDATE SET
            result = excluded.result, encoding = excluded.encoding, size_bytes = excluded.size_bytes,
            body = excluded.body, created_at = excluded.created_at;
    END IF;
END $$;
REVOKE ALL ON FUNCTION write_growth FROM PUBLIC;
GRANT EXECUTE ON FUNCTION write_growth TO orchestrator_app;

-- As before, and with the tasks that were added.
CREATE OR REPLACE FUNCTION execution_status(
    p_tenant text, p_execution_id uuid, p_include_tasks boolean,
    OUT workflow_id uuid, OUT status text, OUT current_phase text, OUT performance_metrics jsonb,
    OUT error_details jsonb, OUT epoch integer, OUT trace_id uuid, OUT started_at timestamptz,
    OUT completed_at timestamptz, OUT now timestamptz, OUT latest_checkpoint_id uuid, OUT tasks_total integer,
    OUT plan_task_ids text[], OUT count_states text[], OUT counts bigint[], OUT task_ids text[],
    OUT task_states text[], OUT agent_ids text[], OUT agent_roles text[], OUT agent_statuses text[],
    OUT running_agents text[], OUT running_tasks text[], OUT running_progress real[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('app.tenant', p_tenant, true);
    SELECT e.workflow_id, e.status, e.current_phase, e.performance_metrics, e.error_details, e.epoch, e.trace_id,
           e.started_at, e.completed_at, clock_timestamp(),
           cardinality(d.task_ids) + coalesce((e.performance_metrics ->> 'tasks_added')::integer, 0),
           CASE WHEN p_include_tasks THEN d.task_ids END
      INTO workflow_id, status, current_phase, performance_metrics, error_details, epoch, trace_id,
           started_at, completed_at, now, tasks_total, plan_task_ids
      FROM workflow_executions AS e
      JOIN workflow_definitions AS d ON d.tenant = e.tenant AND d.workflow_id = e.workflow_id
     WHERE e.tenant = p_tenant AND e.execution_id = p_execution_id;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_include_tasks AND tasks_total > cardinality(plan_task_ids) THEN
        plan_task_ids := plan_task_ids || (
            SELECT array_agg(g.task_id ORDER BY g.tick, g.position)
              FROM execution_growth AS g
             WHERE g.tenant = p_tenant AND g.execution_id = p_execution_id);
    END IF;
    SELECT c.checkpoint_id INTO latest_checkpoint_id
      FROM workflow_checkpoints AS c
     WHERE c.tenant = p_tenant AND c.execution_id = p_execution_id
     ORDER BY c.created_at DESC, c.checkpoint_id DESC
     LIMIT 1;
    IF p_include_tasks THEN
        SELECT array_agg(t.task_id), array_agg(t.state) INTO task_ids, task_states
          FROM execution_tasks AS t
         WHERE t.tenant = p_tenant AND t.execution_id = p_execution_id;
    ELSE
        SELECT array_agg(g.state), array_agg(g.n) INTO count_states, counts
          FROM (SELECT t.state, count(*) AS n
                  FROM execution_tasks AS t
                 WHERE t.tenant = p_tenant AND t.execution_id = p_execution_id
                 GROUP BY t.state) AS g;
    END IF;
    SELECT array_agg(a.agent_id ORDER BY a.agent_id), array_agg(a.role ORDER BY a.agent_id),
           array_agg(a.status ORDER BY a.agent_id)
      INTO agent_ids, agent_roles, agent_statuses
      FROM execution_agents AS a
     WHERE a.tenant = p_tenant AND a.execution_id = p_execution_id;
    -- Not joined to the agents here: without statistics the join of two long lists becomes a nested loop.
    SELECT array_agg(r.agent_id), array_agg(r.task_id), array_agg(r.progress)
      INTO running_agents, running_tasks, running_progress
      FROM (SELECT DISTINCT ON (t.agent_id) t.agent_id, t.task_id, t.progress
              FROM execution_tasks AS t
             WHERE t.tenant = p_tenant AND t.execution_id = p_execution_id AND t.state = 'running'
             ORDER BY t.agent_id, t.started_at NULLS LAST, t.task_id) AS r;
END $$;
