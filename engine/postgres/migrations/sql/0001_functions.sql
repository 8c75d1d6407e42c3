-- The paths that must be one round trip each. All run as the caller, under row-level security, and name the tenant
-- themselves, so that the statement that calls them is the whole transaction.

CREATE FUNCTION stored_ticks(
    p_tenant text, p_execution_id uuid, p_from bigint, p_ticks_max integer, p_bytes_max bigint
) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(array_agg(delta ORDER BY tick), '{}')
          FROM (SELECT tick, delta,
                       sum(octet_length(delta)) OVER (ORDER BY tick) - octet_length(delta) AS bytes_before
                  FROM (SELECT tick, delta
                          FROM tick_journal
                         WHERE tenant = p_tenant AND execution_id = p_execution_id AND tick >= p_from
                         ORDER BY tick
                         LIMIT p_ticks_max) AS candidates) AS sized
         WHERE bytes_before < p_bytes_max);
END $$;

-- Folded changes of tasks, at most one a task. A reset begins the row anew; any other change keeps what it does not
-- name (NULL). Two statements, since DO UPDATE cannot see columns that are not the table's.
CREATE FUNCTION write_tasks(
    p_tenant text, p_execution_id uuid, p_epoch integer,
    p_ids text[], p_states text[], p_resets boolean[], p_attempts integer[], p_agents text[],
    p_assigned_ms bigint[], p_started_ms bigint[], p_completed_ms bigint[],
    p_results json[], p_refs text[], p_errors json[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF true = ANY (p_resets) THEN
        INSERT INTO execution_tasks AS t (
            tenant, execution_id, task_id, state, epoch, attempt, agent_id, progress,
            assigned_at, started_at, completed_at, result, result_ref, error
        )
        SELECT p_tenant, p_execution_id, c.id, c.state, p_epoch, coalesce(c.attempt, 0), c.agent,
               CASE WHEN c.state = 'completed' THEN 1 ELSE 0 END,
               to_timestamp(c.assigned_ms / 1000.0::float8), to_timestamp(c.started_ms / 1000.0::float8),
               to_timestamp(c.completed_ms / 1000.0::float8), c.result, c.ref, c.error
          FROM unnest(p_ids, p_states, p_resets, p_attempts, p_agents, p_assigned_ms, p_started_ms, p_completed_ms,
                      p_results, p_refs, p_errors)
               AS c (id, state, reset, attempt, agent, assigned_ms, started_ms, completed_ms, result, ref, error)
         WHERE c.reset
        ON CONFLICT (tenant, execution_id, task_id) DO UPDATE SET
            state = excluded.state, epoch = excluded.epoch, attempt = excluded.attempt, agent_id = excluded.agent_id,
            progress = excluded.progress, assigned_at = excluded.assigned_at, started_at = excluded.started_at,
            completed_at = excluded.completed_at, result = excluded.result, result_ref = excluded.result_ref,
            error = CASE WHEN excluded.epoch > t.epoch OR excluded.state = 'completed' THEN excluded.error
                         ELSE coalesce(excluded.error, t.error) END;
    END IF;
    IF false = ANY (p_resets) THEN
        INSERT INTO execution_tasks AS t (
            tenant, execution_id, task_id, state, epoch, attempt, agent_id, progress,
            assigned_at, started_at, completed_at, result, result_ref, error
        )
        SELECT p_tenant, p_execution_id, c.id, c.state, p_epoch, coalesce(c.attempt, 0), c.agent,
               CASE WHEN c.state = 'completed' THEN 1 ELSE 0 END,
               to_timestamp(c.assigned_ms / 1000.0::float8), to_timestamp(c.started_ms / 1000.0::float8),
               to_timestamp(c.completed_ms / 1000.0::float8), c.result, c.ref, c.error
          FROM unnest(p_ids, p_states, p_resets, p_attempts, p_agents, p_assigned_ms, p_started_ms, p_completed_ms,
                      p_results, p_refs, p_errors)
               AS c (id, state, reset, attempt, agent, assigned_ms, started_ms, completed_ms, result, ref, error)
         WHERE NOT c.reset
        ON CONFLICT (tenant, execution_id, task_id) DO UPDATE SET
            state = excluded.state, epoch = excluded.epoch,
            attempt = CASE WHEN excluded.attempt > 0 THEN excluded.attempt ELSE t.attempt END,
            agent_id = coalesce(excluded.agent_id, t.agent_id),
            progress = CASE WHEN excluded.state = 'completed' THEN 1 ELSE t.progress END,
            assigned_at = coalesce(excluded.assigned_at, t.assigned_at),
            started_at = coalesce(excluded.started_at, t.started_at),
            completed_at = coalesce(excluded.completed_at, t.completed_at),
            result = CASE WHEN excluded.state = 'completed' THEN excluded.result ELSE t.result END,
            result_ref = CASE WHEN excluded.state = 'completed' THEN excluded.result_ref ELSE t.result_ref END,
            error = CASE WHEN excluded.state = 'completed' THEN NULL ELSE coalesce(excluded.error, t.error) END;
    END IF;
END $$;

CREATE FUNCTION write_agents(
    p_tenant text, p_execution_id uuid, p_ids text[], p_roles text[], p_hosts text[], p_gone text[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(p_ids) > 0 THEN
        INSERT INTO execution_agents (tenant, execution_id, agent_id, role, host_id, status)
        SELECT p_tenant, p_execution_id, c.id, c.role, c.host, 'assigned'
          FROM unnest(p_ids, p_roles, p_hosts) AS c (id, role, host)
        ON CONFLICT (tenant, execution_id, agent_id) DO UPDATE SET
            role = excluded.role, host_id = excluded.host_id, status = 'assigned';
    END IF;
    IF cardinality(p_gone) > 0 THEN
        UPDATE execution_agents SET status = 'failed'
         WHERE tenant = p_tenant AND execution_id = p_execution_id AND agent_id = ANY (p_gone);
    END IF;
END $$;

-- One tick, once. Answers what the journal holds from that tick on; `own` says that it is this very proposal,
-- stored just now (`ticks` is then empty, since the caller has it). `outcome`: own, stored, closed, gap, missing.
CREATE FUNCTION commit_tick(
    p_tenant text, p_execution_id uuid, p_tick bigint, p_base_tick bigint, p_epoch integer, p_delta text,
    p_changes_nothing boolean, p_status text, p_phase text, p_metrics jsonb, p_error jsonb, p_control_seen text,
    p_event_types text[], p_event_ms bigint[], p_event_payloads json[],
    p_task_ids text[], p_task_states text[], p_task_resets boolean[], p_task_attempts integer[],
    p_task_agents text[], p_task_assigned_ms bigint[], p_task_started_ms bigint[], p_task_completed_ms bigint[],
    p_task_results json[], p_task_refs text[], p_task_errors json[],
    p_agent_ids text[], p_agent_roles text[], p_agent_hosts text[], p_agents_gone text[],
    p_checkpoint_id uuid, p_checkpoint_reason text, p_checkpoint_snapshot jsonb, p_checkpoint_recovery jsonb,
    p_ticks_max integer, p_bytes_max bigint,
    OUT outcome text, OUT ticks text[], OUT last_tick bigint, OUT status text, OUT last_sequence bigint,
    OUT now_ms bigint, OUT control_request_id text, OUT control_action text, OUT control_checkpoint_id uuid,
    OUT control_reason text
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    e record;
    v_now timestamptz;
    v_seen bigint;
BEGIN
    PERFORM set_config('app.tenant', p_tenant, true);
    SELECT x.status, x.last_tick, x.last_sequence INTO e
      FROM workflow_executions AS x
     WHERE x.tenant = p_tenant AND x.execution_id = p_execution_id
       FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'missing';
        RETURN;
    END IF;
    -- After the lock: commits of one execution are recorded in their order.
    v_now := clock_timestamp();
    now_ms := floor(extract(epoch FROM v_now) * 1000);
    last_tick := e.last_tick;
    last_sequence := e.last_sequence;
    status := e.status;
    ticks := '{}';

    IF p_tick <= e.last_tick THEN
        outcome := 'stored';
        ticks := stored_ticks(p_tenant, p_execution_id, p_tick, p_ticks_max, p_bytes_max);
    ELSIF e.status IN ('completed', 'failed', 'cancelled') THEN
        outcome := 'closed';
    ELSIF p_tick > e.last_tick + 1 THEN
        outcome := 'gap';
        RETURN;
    ELSE
        outcome := 'own';
        last_tick := p_tick;
        status := coalesce(p_status, e.status);
        last_sequence := e.last_sequence + cardinality(p_event_types);

        INSERT INTO tick_journal (tenant, execution_id, tick, delta, recorded_at)
        VALUES (p_tenant, p_execution_id, p_tick, p_delta, v_now);

        IF cardinality(p_event_types) > 0 THEN
            INSERT INTO execution_events (
                tenant, execution_id, sequence, epoch, tick, event_type, occurred_at, recorded_at, payload
            )
            SELECT p_tenant, p_execution_id, e.last_sequence + v.ordinal, p_epoch, p_tick, v.type,
                   to_timestamp(v.at_ms / 1000.0::float8), v_now, v.payload
              FROM unnest(p_event_types, p_event_ms, p_event_payloads)
                   WITH ORDINALITY AS v (type, at_ms, payload, ordinal);
        END IF;
        IF cardinality(p_task_ids) > 0 THEN
            PERFORM write_tasks(
                p_tenant, p_execution_id, p_epoch, p_task_ids, p_task_states, p_task_resets, p_task_attempts,
                p_task_agents, p_task_assigned_ms, p_task_started_ms, p_task_completed_ms, p_task_results,
                p_task_refs, p_task_errors);
        END IF;
        IF cardinality(p_agent_ids) > 0 OR cardinality(p_agents_gone) > 0 THEN
            PERFORM write_agents(
                p_tenant, p_execution_id, p_agent_ids, p_agent_roles, p_agent_hosts, p_agents_gone);
        END IF;
        IF p_checkpoint_id IS NOT NULL THEN
            INSERT INTO workflow_checkpoints (
                tenant, checkpoint_id, execution_id, tick, epoch, reason, state_snapshot, recovery_instructions,
                created_at
            ) VALUES (
                p_tenant, p_checkpoint_id, p_execution_id, p_tick, p_epoch, p_checkpoint_reason,
                p_checkpoint_snapshot, p_checkpoint_recovery, v_now
            );
        END IF;
        -- A tick that changes nothing need not reach the workflow's history: losing it loses nothing. Were it
        -- counted, an execution that waits would look behind for ever, since each catching up is a tick itself.
        UPDATE workflow_executions AS x SET
            status = coalesce(p_status, x.status),
            current_phase = coalesce(p_phase, x.current_phase),
            performance_metrics = p_metrics,
            error_details = coalesce(p_error, x.error_details),
            completed_at = CASE WHEN p_status IN ('completed', 'failed', 'cancelled') THEN v_now END,
            updated_at = v_now,
            epoch = p_epoch,
            last_tick = p_tick,
            base_tick = greatest(
                x.base_tick,
                CASE WHEN p_changes_nothing AND p_base_tick >= e.last_tick THEN p_tick ELSE p_base_tick END),
            last_sequence = e.last_sequence + cardinality(p_event_types)
         WHERE x.tenant = p_tenant AND x.execution_id = p_execution_id;
    END IF;

    SELECT c.request_id, c.action, c.checkpoint_id, c.reason, c.seen_tick
      INTO control_request_id, control_action, control_checkpoint_id, control_reason, v_seen
      FROM execution_control AS c
     WHERE c.tenant = p_tenant AND c.execution_id = p_execution_id;
    IF control_request_id = p_control_seen AND v_seen IS NULL AND outcome = 'own' THEN
        UPDATE execution_control AS c SET seen_tick = p_tick
         WHERE c.tenant = p_tenant AND c.execution_id = p_execution_id;
        v_seen := p_tick;
    END IF;
    IF v_seen IS NOT NULL THEN
        control_request_id := NULL;
    END IF;
END $$;

-- All that the status of one execution needs. Tasks that were never assigned have no row: the caller knows them
-- from `task_ids`.
CREATE FUNCTION execution_status(
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
           e.started_at, e.completed_at, clock_timestamp(), cardinality(d.task_ids),
           CASE WHEN p_include_tasks THEN d.task_ids END
      INTO workflow_id, status, current_phase, performance_metrics, error_details, epoch, trace_id,
           started_at, completed_at, now, tasks_total, plan_task_ids
      FROM workflow_executions AS e
      JOIN workflow_definitions AS d ON d.tenant = e.tenant AND d.workflow_id = e.workflow_id
     WHERE e.tenant = p_tenant AND e.execution_id = p_execution_id;
    IF NOT FOUND THEN
        RETURN;
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

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT p.oid::regprocedure::text FROM pg_proc AS p
         WHERE p.pronamespace = 'public'::regnamespace
           AND p.proname IN ('stored_ticks', 'write_tasks', 'write_agents', 'commit_tick', 'execution_status')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO orchestrator_app', name);
    END LOOP;
END $$;
