-- A hook's circuit knows its pause: failures of what was under way when it opened do not make it longer.

-- Beside the one of 0007, which hook workers of the version before go on calling.
CREATE FUNCTION record_hook_runs(
    p_tenant text, p_workflow_execution_id uuid, p_trace_id text,
    p_ids uuid[], p_hook_ids uuid[], p_hook_names text[], p_statuses text[], p_outputs text[], p_errors text[],
    p_durations_ms integer[], p_attempts integer[], p_triggers text[], p_subjects text[], p_refused boolean[],
    p_events json[], p_failures_max integer, p_pause_seconds double precision,
    p_pause_seconds_max double precision,
    OUT recorded uuid[], OUT switched_off uuid[], OUT last_sequence bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_execution record;
    v_now timestamptz;
    v_events integer;
BEGIN
    PERFORM set_config('app.tenant', p_tenant, true);
    SELECT e.execution_id, e.epoch, e.last_tick, e.last_sequence INTO v_execution
      FROM workflow_executions AS e
     WHERE e.tenant = p_tenant AND e.execution_id = p_workflow_execution_id
       FOR NO KEY UPDATE;
    v_now := clock_timestamp();
    last_sequence := coalesce(v_execution.last_sequence, 0);

    WITH runs AS (
        INSERT INTO hook_executions (
            tenant, execution_id, hook_id, workflow_execution_id, status, output, error_message, duration_ms, attempts,
            trigger, event_matched, executed_at
        )
        SELECT p_tenant, r.id, r.hook_id, v_execution.execution_id, r.status, r.output, r.error, r.duration_ms,
               r.attempts, r.trigger, r.subject, v_now
          FROM unnest(p_ids, p_hook_ids, p_statuses, p_outputs, p_errors, p_durations_ms, p_attempts, p_triggers,
                      p_subjects) AS r (id, hook_id, status, output, error, duration_ms, attempts, trigger, subject)
        ON CONFLICT (tenant, execution_id) DO NOTHING
        RETURNING execution_id
    )
    SELECT coalesce(array_agg(runs.execution_id), '{}') INTO recorded FROM runs;

    -- In one order, so that two who record runs of the same hooks do not wait for each other.
    PERFORM FROM workflow_hooks AS h
      WHERE h.tenant = p_tenant AND h.hook_id = ANY (p_hook_ids)
      ORDER BY h.hook_id
        FOR NO KEY UPDATE;
    WITH runs AS (
        SELECT r.hook_id, r.status, r.duration_ms, r.ordinal
          FROM unnest(p_ids, p_hook_ids, p_statuses, p_durations_ms)
               WITH ORDINALITY AS r (id, hook_id, status, duration_ms, ordinal)
         WHERE r.id = ANY (recorded)
    ), sums AS (
        SELECT runs.hook_id, count(*) AS runs, count(*) FILTER (WHERE runs.status = 'completed') AS successes,
               sum(runs.duration_ms) AS duration_ms,
               max(runs.ordinal) FILTER (WHERE runs.status = 'completed') AS last_success
          FROM runs
         GROUP BY runs.hook_id
    ), tails AS (
        SELECT s.*, (SELECT count(*) FROM runs
                      WHERE runs.hook_id = s.hook_id AND runs.status <> 'completed'
                        AND runs.ordinal > coalesce(s.last_success, 0)) AS failures
          FROM sums AS s
    ), judged AS (
        SELECT t.*,
               CASE WHEN t.last_success IS NULL THEN h.consecutive_failures ELSE 0 END + t.failures AS in_a_row,
               -- What was under way when it opened, and fails behind that, says nothing new: only what is tried after the
               -- pause makes the next one longer.
               t.last_success IS NULL AND h.circuit_opened_at IS NOT NULL AND v_now < h.circuit_opened_at
                   + make_interval(secs => least(p_pause_seconds * 2 ^ least(h.circuit_openings - 1, 20),
                                                 p_pause_seconds_max)) AS rests
          FROM tails AS t
          JOIN workflow_hooks AS h ON h.tenant = p_tenant AND h.hook_id = t.hook_id
    ), updated AS (
        UPDATE workflow_hooks AS h SET
            total_executions = h.total_executions + j.runs,
            successful_executions = h.successful_executions + j.successes,
            duration_ms_total = h.duration_ms_total + j.duration_ms,
            consecutive_failures = j.in_a_row,
            circuit_openings = CASE WHEN j.failures = 0 THEN 0
                                    WHEN j.rests THEN h.circuit_openings
                                    WHEN h.circuit_opened_at IS NOT NULL OR j.in_a_row >= p_failures_max
                                        THEN h.circuit_openings + 1
                                    ELSE h.circuit_openings END,
            circuit_opened_at = CASE WHEN j.failures = 0 THEN NULL
                                     WHEN j.rests THEN h.circuit_opened_at
                                     WHEN h.circuit_opened_at IS NOT NULL OR j.in_a_row >= p_failures_max THEN v_now
                                     ELSE NULL END
          FROM judged AS j
         WHERE h.tenant = p_tenant AND h.hook_id = j.hook_id
        RETURNING h.hook_id, CASE WHEN j.rests THEN NULL ELSE h.circuit_opened_at END AS circuit_opened_at
    )
    SELECT coalesce(array_agg(u.hook_id) FILTER (WHERE u.circuit_opened_at IS NOT NULL), '{}') INTO switched_off
      FROM updated AS u;

    IF cardinality(switched_off) > 0 THEN
        INSERT INTO operation_log (
            tenant, actor, roles, address, operation, subject_type, subject_id, outcome, request_id, details
        )
        SELECT p_tenant, 'engine', '{}', '', 'hooks.switch_off', 'hook', h.hook_id::text, 'ok', p_trace_id,
               json_build_object('hook_name', h.name, 'consecutive_failures', h.consecutive_failures)
          FROM workflow_hooks AS h
         WHERE h.tenant = p_tenant AND h.hook_id = ANY (switched_off);
    END IF;
    IF v_execution.execution_id IS NOT NULL THEN
        WITH facts AS (
            -- Of asynchronous hooks the tick has said so itself.
            SELECT 'hook.triggered' AS type, r.ordinal, 0 AS part, r.event AS payload
              FROM unnest(p_ids, p_events) WITH ORDINALITY AS r (id, event, ordinal)
             WHERE r.event IS NOT NULL AND r.id = ANY (recorded)
             UNION ALL
            SELECT 'hook.executed', r.ordinal, 1,
                   json_strip_nulls(json_build_object(
                       'hook_id', r.hook_id, 'hook_name', r.name, 'trigger', r.trigger, 'status', r.status,
                       'duration_ms', r.duration_ms, 'attempts', r.attempts, 'hook_execution_id', r.id,
                       'error_message', r.error, 'refused', CASE WHEN r.refused THEN true END)) AS payload
              FROM unnest(p_ids, p_hook_ids, p_hook_names, p_triggers, p_statuses, p_durations_ms, p_attempts, p_errors,
                          p_refused)
                   WITH ORDINALITY AS r (id, hook_id, name, trigger, status, duration_ms, attempts, error, refused,
                                         ordinal)
             WHERE r.id = ANY (recorded)
             UNION ALL
            SELECT 'hook.switched_off', NULL, 2,
                   json_build_object('hook_id', h.hook_id, 'hook_name', h.name,
                                     'consecutive_failures', h.consecutive_failures)
              FROM workflow_hooks AS h
             WHERE h.tenant = p_tenant AND h.hook_id = ANY (switched_off)
        ), numbered AS (
            SELECT f.type, f.payload, row_number() OVER (ORDER BY f.part / 2, f.ordinal, f.part) AS place
              FROM facts AS f
        ), written AS (
            INSERT INTO execution_events (
                tenant, execution_id, sequence, epoch, tick, event_type, occurred_at, recorded_at, payload
            )
            SELECT p_tenant, v_execution.execution_id, v_execution.last_sequence + n.place, v_execution.epoch,
                   v_execution.last_tick, n.type, v_now, v_now, n.payload
              FROM numbered AS n
            RETURNING 1
        )
        SELECT count(*) INTO v_events FROM written;
        last_sequence := v_execution.last_sequence + v_events;
        UPDATE workflow_executions AS e SET last_sequence = v_execution.last_sequence + v_events
         WHERE e.tenant = p_tenant AND e.execution_id = v_execution.execution_id;
    END IF;
END $$;

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT p.oid::regprocedure::text FROM pg_proc AS p
         WHERE p.pronamespace = 'public'::regnamespace AND p.proname IN ('record_hook_runs')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO orchestrator_app, orchestrator_maintenance', name);
    END LOOP;
END $$;
