-- Tables. Every one carries the tenant, and every key begins with it.
--
-- Tables that a tick writes have no foreign keys: a check a row would cost more than the row. commit_tick writes
-- them under the lock of the execution's row, which is what keeps them whole.

CREATE TABLE workflow_definitions (
    tenant text COLLATE "C" NOT NULL,
    workflow_id uuid NOT NULL DEFAULT gen_random_uuid(),
    name varchar(255) NOT NULL,
    version varchar(50) NOT NULL,
    orchestration_pattern varchar(50) NOT NULL,
    definition jsonb NOT NULL,
    content_hash text NOT NULL,
    plan text NOT NULL,
    task_ids text[] NOT NULL,
    estimated_resources jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    deleted_at timestamptz,
    PRIMARY KEY (tenant, workflow_id)
);
COMMENT ON COLUMN workflow_definitions.plan IS 'JSON as the planner wrote it; read whole, never queried';
COMMENT ON COLUMN workflow_definitions.task_ids IS 'in the plan''s order, so that status need not read the plan';
COMMENT ON COLUMN workflow_definitions.created_by IS 'subject of the token, which need not be a UUID';

CREATE UNIQUE INDEX idx_workflow_name_version ON workflow_definitions (tenant, name, version)
    WHERE deleted_at IS NULL;
CREATE INDEX idx_workflow_pattern ON workflow_definitions (tenant, orchestration_pattern, created_at DESC);
CREATE INDEX idx_workflow_created_at ON workflow_definitions (tenant, created_at DESC, workflow_id DESC);
CREATE INDEX idx_workflow_name ON workflow_definitions (tenant, name);

CREATE TABLE workflow_executions (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    workflow_id uuid NOT NULL,
    status varchar(50) NOT NULL,
    current_phase varchar(255),
    performance_metrics jsonb NOT NULL DEFAULT '{}',
    error_details jsonb,
    started_at timestamptz NOT NULL,
    completed_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    epoch integer NOT NULL DEFAULT 1,
    last_tick bigint NOT NULL DEFAULT 0,
    base_tick bigint NOT NULL DEFAULT 0,
    last_sequence bigint NOT NULL DEFAULT 0,
    trace_id uuid NOT NULL,
    allow_concurrent boolean NOT NULL DEFAULT false,
    request_hash text,
    started_by text NOT NULL,
    roles jsonb NOT NULL,
    input_data jsonb NOT NULL,
    options jsonb NOT NULL,
    launch text NOT NULL,
    PRIMARY KEY (tenant, execution_id),
    FOREIGN KEY (tenant, workflow_id) REFERENCES workflow_definitions (tenant, workflow_id),
    CONSTRAINT valid_status CHECK (
        status IN ('planning', 'executing', 'paused', 'completed', 'failed', 'cancelled')
    )
) WITH (fillfactor = 70);
COMMENT ON COLUMN workflow_executions.launch IS 'the workflow''s argument as JSON, so that a launch can be finished';
COMMENT ON COLUMN workflow_executions.base_tick IS 'last tick known to be in the workflow''s own history';

-- One open execution a workflow, unless the client lifted it.
CREATE UNIQUE INDEX idx_execution_one_open ON workflow_executions (tenant, workflow_id)
    WHERE status IN ('planning', 'executing', 'paused') AND NOT allow_concurrent;
CREATE INDEX idx_execution_workflow ON workflow_executions (tenant, workflow_id, started_at DESC);
CREATE INDEX idx_execution_status ON workflow_executions (tenant, status, started_at DESC);
CREATE INDEX idx_execution_started_at ON workflow_executions (tenant, started_at DESC, execution_id DESC);
CREATE INDEX idx_execution_open ON workflow_executions (execution_id)
    WHERE status IN ('planning', 'executing', 'paused');

CREATE TABLE execution_tasks (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    state text NOT NULL,
    epoch integer NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    agent_id text COLLATE "C",
    progress real NOT NULL DEFAULT 0,
    assigned_at timestamptz,
    started_at timestamptz,
    completed_at timestamptz,
    result json,
    result_ref text,
    error json,
    PRIMARY KEY (tenant, execution_id, task_id),
    CONSTRAINT valid_state CHECK (
        state IN ('pending', 'running', 'completed', 'failed', 'skipped', 'compensating', 'compensated', 'cancelled')
    )
) WITH (fillfactor = 70);
COMMENT ON COLUMN execution_tasks.result IS 'json, not jsonb: jsonb refuses NUL characters, and a result must not stop a tick';

CREATE TABLE execution_agents (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    role text NOT NULL,
    host_id text COLLATE "C",
    status text NOT NULL,
    PRIMARY KEY (tenant, execution_id, agent_id),
    CONSTRAINT valid_status CHECK (status IN ('assigned', 'failed'))
);
COMMENT ON COLUMN execution_agents.status IS 'whether its host is there; running and completed follow from its tasks';
CREATE INDEX idx_agent_host ON execution_agents (tenant, host_id) WHERE status = 'assigned';

CREATE TABLE tick_journal (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    tick bigint NOT NULL,
    delta text NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, execution_id, tick)
);

CREATE TABLE execution_events (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    sequence bigint NOT NULL,
    epoch integer NOT NULL,
    tick bigint NOT NULL,
    event_type text NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    payload json NOT NULL,
    PRIMARY KEY (tenant, execution_id, sequence)
);

CREATE TABLE workflow_checkpoints (
    tenant text COLLATE "C" NOT NULL,
    checkpoint_id uuid NOT NULL DEFAULT gen_random_uuid(),
    execution_id uuid NOT NULL,
    tick bigint NOT NULL,
    epoch integer NOT NULL,
    reason text NOT NULL,
    state_snapshot jsonb NOT NULL,
    recovery_instructions jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, checkpoint_id),
    FOREIGN KEY (tenant, execution_id) REFERENCES workflow_executions (tenant, execution_id)
);
CREATE INDEX idx_checkpoint_execution ON workflow_checkpoints
    (tenant, execution_id, created_at DESC, checkpoint_id DESC);
CREATE INDEX idx_checkpoint_created_at ON workflow_checkpoints (created_at DESC);

CREATE TABLE execution_control (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    request_id text NOT NULL,
    action text NOT NULL,
    checkpoint_id uuid,
    reason text,
    requested_at timestamptz NOT NULL DEFAULT now(),
    seen_tick bigint,
    PRIMARY KEY (tenant, execution_id),
    FOREIGN KEY (tenant, execution_id) REFERENCES workflow_executions (tenant, execution_id),
    CONSTRAINT valid_action CHECK (action IN ('pause', 'resume', 'cancel', 'checkpoint'))
);

CREATE TABLE payloads (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL,
    reference text COLLATE "C" NOT NULL,
    encoding text NOT NULL,
    size_bytes bigint NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, execution_id, reference),
    CONSTRAINT valid_encoding CHECK (encoding IN ('identity', 'zlib'))
);
-- It is compressed before it comes.
ALTER TABLE payloads ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE agent_hosts (
    tenant text COLLATE "C" NOT NULL,
    host_id text COLLATE "C" NOT NULL,
    types text[] NOT NULL,
    capabilities text[],
    slots integer NOT NULL,
    pid integer,
    state text NOT NULL,
    registered_at timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    PRIMARY KEY (tenant, host_id),
    CONSTRAINT valid_state CHECK (state IN ('live', 'gone'))
) WITH (fillfactor = 70);
COMMENT ON COLUMN agent_hosts.capabilities IS 'NULL: has every capability';
CREATE INDEX idx_host_live ON agent_hosts (tenant) WHERE state = 'live';

CREATE TABLE operation_log (
    tenant text COLLATE "C" NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    actor text NOT NULL,
    roles text[] NOT NULL,
    address text NOT NULL,
    operation text NOT NULL,
    subject_type text NOT NULL,
    subject_id text,
    outcome text NOT NULL,
    request_id text NOT NULL,
    details json NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, id)
);

CREATE TABLE workflow_hooks (
    tenant text COLLATE "C" NOT NULL,
    hook_id uuid NOT NULL DEFAULT gen_random_uuid(),
    name varchar(255) NOT NULL,
    description text,
    trigger varchar(50) NOT NULL,
    event_pattern varchar(500),
    action_type varchar(20) NOT NULL,
    action_command text,
    action_function varchar(500),
    action_args jsonb NOT NULL DEFAULT '[]',
    priority integer NOT NULL DEFAULT 100,
    enabled boolean NOT NULL DEFAULT true,
    timeout_seconds integer NOT NULL DEFAULT 30,
    retry_policy jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, hook_id),
    UNIQUE (tenant, name),
    CONSTRAINT valid_trigger CHECK (trigger IN (
        'pre_task', 'post_task', 'pre_workflow', 'post_workflow',
        'session_start', 'session_end', 'agent_assigned', 'agent_failed'
    )),
    CONSTRAINT valid_action_type CHECK (action_type IN ('command', 'function'))
);
CREATE INDEX idx_hooks_trigger ON workflow_hooks (tenant, trigger) WHERE enabled;
CREATE INDEX idx_hooks_priority ON workflow_hooks (tenant, priority);

-- A hook's runs outlive it, so hook_id is no foreign key: it would block deleting the hook or lose the id.
CREATE TABLE hook_executions (
    tenant text COLLATE "C" NOT NULL,
    execution_id uuid NOT NULL DEFAULT gen_random_uuid(),
    hook_id uuid NOT NULL,
    workflow_execution_id uuid,
    status varchar(20) NOT NULL,
    output text,
    error_message text,
    duration_ms integer,
    executed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, execution_id),
    FOREIGN KEY (tenant, workflow_execution_id) REFERENCES workflow_executions (tenant, execution_id),
    CONSTRAINT valid_status CHECK (status IN ('completed', 'failed', 'timeout'))
);
CREATE INDEX idx_hook_exec_hook ON hook_executions (tenant, hook_id, executed_at DESC);
CREATE INDEX idx_hook_exec_workflow ON hook_executions (tenant, workflow_execution_id);
-- Serves the clean-up by age; an index's condition cannot ask what time it is.
CREATE INDEX idx_hook_exec_executed_at ON hook_executions (executed_at);

-- The executions with their tasks and agents as documents, for people and reports. Stored as rows, because one
-- document rewritten at each tick would cost more than the work.
CREATE VIEW execution_documents WITH (security_invoker = true) AS
SELECT e.tenant, e.execution_id, e.workflow_id, e.status, e.current_phase,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('agent_id', a.agent_id, 'role', a.role, 'status', a.status)
                                  ORDER BY a.agent_id), '[]')
          FROM execution_agents a
         WHERE a.tenant = e.tenant AND a.execution_id = e.execution_id) AS allocated_agents,
       (SELECT coalesce(jsonb_object_agg(t.task_id, t.state), '{}')
          FROM execution_tasks t
         WHERE t.tenant = e.tenant AND t.execution_id = e.execution_id) AS task_states,
       e.performance_metrics, e.error_details, e.started_at, e.completed_at
  FROM workflow_executions e;
