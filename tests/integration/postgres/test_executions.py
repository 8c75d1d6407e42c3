"""Planning, reading and closing executions against a real server."""

import asyncio
import copy
import uuid
from uuid import UUID

import pytest

from engine.contracts.events import AuditEventType
from engine.contracts.execution import AgentStatus, ExecutionStatus, TaskState
from engine.contracts.kernel import Checkpoint, Failed, Metrics
from engine.errors import (
    AlreadyExecutingError,
    CheckpointNotFoundError,
    IdempotencyConflictError,
    InvalidParametersError,
    NotFoundError,
    UnavailableError,
)
from engine.ports import PlannedExecution
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.pool import Database
from tests.integration.postgres.builders import (
    BASE_MS,
    DIAMOND,
    Run,
    attempt,
    create_workflow,
    done,
    event,
    launch_of,
    plan_execution,
    result,
)


@pytest.fixture
async def workflow_id(definitions: PostgresDefinitionStore, tenant: str) -> UUID:
    return await create_workflow(definitions, tenant)


@pytest.fixture
async def run(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, journal: PostgresJournal, tenant: str
) -> Run:
    return await plan_execution(definitions, executions, journal, tenant)


async def plan(
    executions: PostgresExecutionStore,
    tenant: str,
    workflow_id: UUID,
    execution_id: UUID | None = None,
    request_hash: str | None = None,
    allow_concurrent: bool = False,
) -> PlannedExecution:
    launch = launch_of(tenant, workflow_id, execution_id=execution_id)
    return await executions.insert_planning(
        tenant, launch, {"n": 1}, {}, "someone", allow_concurrent=allow_concurrent, request_hash=request_hash
    )


async def test_a_planned_execution_is_seen_at_once_with_its_first_event(
    run: Run, executions: PostgresExecutionStore
) -> None:
    view = await executions.status(run.tenant, run.execution_id)
    assert view.status is ExecutionStatus.PLANNING
    assert view.task_states == dict.fromkeys(DIAMOND, TaskState.PENDING)
    assert list(view.task_states) == list(DIAMOND)
    assert view.task_counts["pending"] == 4
    assert view.workflow_id == run.workflow_id
    assert int(view.started_at.timestamp() * 1000) == BASE_MS
    events, more = await executions.events(run.tenant, run.execution_id, after_sequence=0, limit=10)
    assert not more
    assert [(item.sequence, item.event_type) for item in events] == [(1, "workflow.status_changed")]
    assert events[0].payload == {"previous_status": None, "new_status": "planning"}


async def test_a_second_open_execution_is_refused(
    executions: PostgresExecutionStore, tenant: str, workflow_id: UUID
) -> None:
    first = await plan(executions, tenant, workflow_id)
    with pytest.raises(AlreadyExecutingError) as refused:
        await plan(executions, tenant, workflow_id)
    assert refused.value.data == {"execution_id": str(first.execution_id)}
    events, _ = await executions.events(tenant, first.execution_id, after_sequence=0, limit=10)
    assert len(events) == 1


async def test_allow_concurrent_lifts_the_limit(
    executions: PostgresExecutionStore, tenant: str, workflow_id: UUID
) -> None:
    await plan(executions, tenant, workflow_id)
    concurrent = await plan(executions, tenant, workflow_id, allow_concurrent=True)
    assert concurrent.created


async def test_a_closed_execution_makes_room_for_the_next(
    executions: PostgresExecutionStore, tenant: str, workflow_id: UUID
) -> None:
    first = await plan(executions, tenant, workflow_id)
    await executions.close_from_outside(tenant, first.execution_id, ExecutionStatus.FAILED, "X", "x")
    assert (await plan(executions, tenant, workflow_id)).created


async def test_the_same_request_again_answers_the_same_execution(
    executions: PostgresExecutionStore, tenant: str, workflow_id: UUID
) -> None:
    execution_id = uuid.uuid4()
    first = await plan(executions, tenant, workflow_id, execution_id, "hash")
    again = await plan(executions, tenant, workflow_id, execution_id, "hash")
    assert first.created
    assert not again.created
    assert again.model_copy(update={"created": True}) == first
    with pytest.raises(IdempotencyConflictError):
        await plan(executions, tenant, workflow_id, execution_id, "another hash")


async def test_the_same_request_many_times_at_once_makes_one_execution(
    executions: PostgresExecutionStore, tenant: str, workflow_id: UUID
) -> None:
    execution_id = uuid.uuid4()
    answers = await asyncio.gather(*(plan(executions, tenant, workflow_id, execution_id, "hash") for _ in range(12)))
    assert [answer.created for answer in answers].count(True) == 1
    assert {answer.execution_id for answer in answers} == {execution_id}


async def test_many_requests_at_once_make_one_open_execution(
    executions: PostgresExecutionStore, tenant: str, workflow_id: UUID
) -> None:
    answers = await asyncio.gather(*(plan(executions, tenant, workflow_id) for _ in range(12)), return_exceptions=True)
    assert sum(isinstance(answer, PlannedExecution) for answer in answers) == 1
    assert sum(isinstance(answer, AlreadyExecutingError) for answer in answers) == 11


async def test_planning_refuses_what_is_not_there_or_not_the_tenants(
    executions: PostgresExecutionStore, tenant: str, workflow_id: UUID
) -> None:
    with pytest.raises(NotFoundError):
        await plan(executions, tenant, uuid.uuid4())
    with pytest.raises(NotFoundError):
        await plan(executions, f"{tenant}-other", workflow_id)
    with pytest.raises(InvalidParametersError):
        await executions.insert_planning(
            "another", launch_of(tenant, workflow_id), {}, {}, "x", allow_concurrent=False, request_hash=None
        )


@pytest.mark.parametrize("value", ["a\x00b", "\ud800", 2**70])
async def test_input_that_cannot_be_stored_is_the_clients_error(
    executions: PostgresExecutionStore, tenant: str, workflow_id: UUID, value: object
) -> None:
    with pytest.raises(InvalidParametersError):
        await executions.insert_planning(
            tenant, launch_of(tenant, workflow_id), {"v": value}, {}, "x", allow_concurrent=False, request_hash=None
        )
    assert (await executions.list(tenant, limit=10, page_token=None)).items == ()


async def test_status_tells_tasks_agents_and_metrics(
    run: Run, executions: PostgresExecutionStore, database: Database
) -> None:
    await run.start("worker-1", "worker-2", "worker-3")
    await run.commit(assigned=(attempt("a"), attempt("b", agent_id="worker-2")))
    await run.commit(
        done=(done("a"),),
        results=(result("a", {"n": 1}),),
        gone=("worker-3",),
        metrics=Metrics(tasks_completed=1, tasks_running=1, idle_ms=500, paused_ms=0),
    )
    view = await executions.status(run.tenant, run.execution_id)
    assert view.task_states == {
        "a": TaskState.COMPLETED, "b": TaskState.RUNNING, "c": TaskState.PENDING, "d": TaskState.PENDING
    }  # fmt: skip
    assert {state: n for state, n in view.task_counts.items() if n} == {"completed": 1, "running": 1, "pending": 2}
    assert [(agent.agent_id, agent.status, agent.current_task) for agent in view.agents] == [
        ("worker-1", AgentStatus.ASSIGNED, None),
        ("worker-2", AgentStatus.RUNNING, "b"),
        ("worker-3", AgentStatus.FAILED, None),
    ]
    metrics = view.performance_metrics
    assert (metrics.agents_allocated, metrics.tasks_completed, metrics.tasks_failed) == (3, 1, 0)
    assert metrics.total_runtime_seconds > 0
    without = await executions.status(run.tenant, run.execution_id, include_tasks=False)
    assert without.task_states == {}
    assert without.task_counts == view.task_counts
    large = {"task_states", "performance_metrics", "allotment"}
    assert without.model_dump(exclude=large) == view.model_dump(exclude=large)


async def test_agents_of_a_completed_execution_have_completed(run: Run, executions: PostgresExecutionStore) -> None:
    await run.start("worker-1")
    await run.commit(
        done=tuple(done(task) for task in DIAMOND),
        status=ExecutionStatus.COMPLETED,
        metrics=Metrics(idle_ms=10**12, paused_ms=10),
    )
    view = await executions.status(run.tenant, run.execution_id)
    assert [agent.status for agent in view.agents] == [AgentStatus.COMPLETED]
    assert view.performance_metrics.coordination_overhead == 100.0
    assert view.completed_at is not None


async def test_overhead_leaves_the_pause_out(run: Run, executions: PostgresExecutionStore, database: Database) -> None:
    await run.commit(status=ExecutionStatus.COMPLETED, metrics=Metrics(idle_ms=2_000, paused_ms=10_000))
    async with database.tenant_connection(run.tenant) as connection:
        await connection.execute(
            "UPDATE workflow_executions SET completed_at = started_at + interval '20 s' WHERE execution_id = $1",
            run.execution_id,
        )
    metrics = (await executions.status(run.tenant, run.execution_id)).performance_metrics
    assert (metrics.total_runtime_seconds, metrics.coordination_overhead) == (20, 20.0)


async def test_tasks_come_in_the_plans_order_in_pages(run: Run, executions: PostgresExecutionStore) -> None:
    await run.commit(assigned=(attempt("b"),))
    failure = Failed(
        task_id="b", attempt=1, agent_id="worker-1", code="E", message="no", at_ms=BASE_MS + 1000, retry_at_ms=BASE_MS
    )
    await run.commit(failed=(failure,), done=(done("a"),), results=(result("a", [1]),))
    first = await executions.tasks(run.tenant, run.execution_id, limit=3, page_token=None)
    assert [item.task_id for item in first.items] == ["a", "b", "c"]
    a, b, c = first.items
    assert (a.state, a.result, a.progress, a.attempt) == (TaskState.COMPLETED, [1], 1.0, 1)
    assert a.started_at is not None
    assert a.completed_at is not None
    assert (b.state, b.attempt, b.agent_id) == (TaskState.PENDING, 1, None)
    assert b.error is not None
    assert (b.error["code"], b.error["message"], b.error["attempt"]) == ("E", "no", 1)
    assert (c.state, c.attempt, c.result) == (TaskState.PENDING, 0, None)
    second = await executions.tasks(run.tenant, run.execution_id, limit=3, page_token=first.next_page_token)
    assert [item.task_id for item in second.items] == ["d"]
    assert second.next_page_token is None
    pending = await executions.tasks(run.tenant, run.execution_id, limit=2, page_token=None, state="pending")
    assert [item.task_id for item in pending.items] == ["b", "c"]
    rest = await executions.tasks(
        run.tenant, run.execution_id, limit=2, page_token=pending.next_page_token, state="pending"
    )
    assert ([item.task_id for item in rest.items], rest.next_page_token) == (["d"], None)


async def test_executions_are_listed_newest_first_and_filtered(
    executions: PostgresExecutionStore, tenant: str, workflow_id: UUID
) -> None:
    planned = [await plan(executions, tenant, workflow_id, allow_concurrent=True) for _ in range(5)]
    await executions.close_from_outside(tenant, planned[0].execution_id, ExecutionStatus.CANCELLED, "X", "x")
    seen: list[UUID] = []
    token = None
    while True:
        page = await executions.list(tenant, limit=2, page_token=token)
        seen += [item.execution_id for item in page.items]
        token = page.next_page_token
        if token is None:
            break
    assert seen == sorted((item.execution_id for item in planned), reverse=True)
    cancelled = await executions.list(tenant, limit=10, page_token=None, status="cancelled")
    assert [item.execution_id for item in cancelled.items] == [planned[0].execution_id]
    assert cancelled.items[0].tasks_total == 4
    mine = await executions.list(tenant, limit=10, page_token=None, workflow_id=workflow_id)
    assert len(mine.items) == 5
    other = await executions.list(tenant, limit=10, page_token=None, workflow_id=uuid.uuid4())
    assert other.items == ()


async def test_events_come_in_pages(run: Run, executions: PostgresExecutionStore) -> None:
    await run.commit(audit=tuple(event(AuditEventType.TASK_ASSIGNED, n=n) for n in range(4)))
    first, more = await executions.events(run.tenant, run.execution_id, after_sequence=0, limit=3)
    assert ([item.sequence for item in first], more) == ([1, 2, 3], True)
    rest, more = await executions.events(run.tenant, run.execution_id, after_sequence=3, limit=3)
    assert ([item.sequence for item in rest], more) == ([4, 5], False)
    none, more = await executions.events(run.tenant, run.execution_id, after_sequence=5, limit=3)
    assert (list(none), more) == ([], False)


async def test_checkpoints_are_listed_newest_first(run: Run, executions: PostgresExecutionStore) -> None:
    made = []
    for _ in range(3):
        checkpoint = Checkpoint(checkpoint_id=str(uuid.uuid4()), reason="interval", completed=())
        await run.commit(checkpoint=checkpoint)
        made.append(UUID(checkpoint.checkpoint_id))
    first = await executions.checkpoints(run.tenant, run.execution_id, limit=2, page_token=None)
    second = await executions.checkpoints(run.tenant, run.execution_id, limit=2, page_token=first.next_page_token)
    assert [item.checkpoint_id for item in (*first.items, *second.items)] == made[::-1]
    assert second.next_page_token is None
    with pytest.raises(CheckpointNotFoundError):
        await executions.checkpoint(run.tenant, run.execution_id, uuid.uuid4())


async def test_closing_from_outside_cancels_what_was_left(run: Run, executions: PostgresExecutionStore) -> None:
    await run.start()
    await run.commit(assigned=(attempt("b"),), done=(done("a"),))
    assert await executions.close_from_outside(
        run.tenant, run.execution_id, ExecutionStatus.FAILED, "TERMINATED", "somebody\x00did"
    )
    view = await executions.status(run.tenant, run.execution_id)
    assert view.status is ExecutionStatus.FAILED
    assert view.error_details is not None
    assert (view.error_details["error_code"], view.error_details["error_message"]) == (
        "TERMINATED", "somebody\ufffddid"
    )  # fmt: skip
    assert view.task_states == {"a": TaskState.COMPLETED} | dict.fromkeys("bcd", TaskState.CANCELLED)
    assert view.completed_at is not None
    events, _ = await executions.events(run.tenant, run.execution_id, after_sequence=2, limit=10)
    assert [item.payload for item in events] == [{"previous_status": "executing", "new_status": "failed"}]
    late = await run.journal.commit(run.proposal(3, done=(done("b"),)))
    assert (late.own, late.ticks, late.status) == (False, (), ExecutionStatus.FAILED)
    assert not await executions.close_from_outside(run.tenant, run.execution_id, ExecutionStatus.CANCELLED, "X", "x")
    with pytest.raises(InvalidParametersError):
        await executions.close_from_outside(run.tenant, run.execution_id, ExecutionStatus.PAUSED, "X", "x")


async def test_an_execution_closed_as_completed_has_no_error(run: Run, executions: PostgresExecutionStore) -> None:
    await executions.close_from_outside(run.tenant, run.execution_id, ExecutionStatus.COMPLETED, "", "")
    assert (await executions.status(run.tenant, run.execution_id)).error_details is None


async def test_what_is_not_there_is_not_found_everywhere(executions: PostgresExecutionStore, tenant: str) -> None:
    nothing = uuid.uuid4()
    for call in (
        executions.status(tenant, nothing),
        executions.tasks(tenant, nothing, limit=1, page_token=None),
        executions.events(tenant, nothing, after_sequence=0, limit=1),
        executions.checkpoints(tenant, nothing, limit=1, page_token=None),
        executions.checkpoint(tenant, nothing, nothing),
        executions.close_from_outside(tenant, nothing, ExecutionStatus.FAILED, "X", "x"),
    ):
        with pytest.raises(NotFoundError):
            await call


async def test_bad_parameters_are_refused(run: Run, executions: PostgresExecutionStore) -> None:
    tenant, execution_id = run.tenant, run.execution_id
    for call in (
        executions.list(tenant, limit=0, page_token=None),
        executions.list(tenant, limit=1001, page_token=None),
        executions.list(tenant, limit=1, page_token=None, status="sleeping"),
        executions.list(tenant, limit=1, page_token="!!"),
        executions.tasks(tenant, execution_id, limit=1, page_token=None, state="asleep"),
        executions.events(tenant, execution_id, after_sequence=-1, limit=1),
        executions.events(tenant, execution_id, after_sequence=2**63, limit=1),
        executions.status("Not A Tenant", execution_id),
        executions.list("'; DROP TABLE x", limit=1, page_token=None),
    ):
        with pytest.raises(InvalidParametersError):
            await call


async def test_two_calls_with_one_id_that_meet_at_the_insertion_make_one_execution(
    database: Database, executions: PostgresExecutionStore, tenant: str, workflow_id: UUID
) -> None:
    """The second looked before the first was there, and looks in vain again: it can only be tried again."""
    execution_id = uuid.uuid4()
    await plan(executions, tenant, workflow_id, execution_id, "hash")
    blind = copy.copy(database)
    blind.queries = {
        **database.queries,
        "executions.find_planned": database.queries["executions.find_planned"] + " AND last_tick < 0",
    }
    late = PostgresExecutionStore(blind)
    with pytest.raises(UnavailableError):
        await plan(late, tenant, workflow_id, execution_id, "hash")
