"""Steps that are left to operators: the tick that closes leaves them, and requests move them on."""

import uuid
from uuid import UUID

import pytest

from engine.contracts.compensation import (
    Compensated,
    Compensating,
    LeftCompensation,
    RetryOutcome,
    RetryRequest,
    TaskToUndo,
)
from engine.contracts.definition import RetryPolicy
from engine.contracts.execution import ExecutionStatus, TaskState
from engine.contracts.kernel import TerminalError
from engine.errors import InvalidParametersError, InvalidTransitionError, NotFoundError
from engine.postgres.compensations import PostgresCompensationStore
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.dispatch import PostgresDispatchStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.pool import Database
from tests.integration.postgres.builders import Run, attempt, done, plan_execution, result


@pytest.fixture
def store(database: Database) -> PostgresCompensationStore:
    return PostgresCompensationStore(database)


@pytest.fixture
async def run(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, journal: PostgresJournal, tenant: str
) -> Run:
    """Closed: `d` was undone; `c` could not be, so that `b` and `a`, on which it depends, were not tried."""
    run = await plan_execution(definitions, executions, journal, tenant)
    await run.start()
    await run.commit(assigned=tuple(attempt(name) for name in "abcd"))
    results = tuple(result(name, {"of": name}) for name in "abcd")
    await run.commit(done=tuple(done(name) for name in "abcd"), results=results)
    await run.commit(compensating=(Compensating(task_id="d", attempt=1),))
    await run.commit(
        compensated=(Compensated(task_id="d", attempt=1),), compensating=(Compensating(task_id="c", attempt=1),)
    )
    left = (
        leaving("c", 2, failed=True, attempts=2, code="BROKEN", message="no\x00way"),
        leaving("b", 3, blocked_by=("c",)),
        leaving("a", 4, blocked_by=("b", "c")),
    )
    error = TerminalError(
        error_code="TASK_FAILED",
        error_message="no",
        compensation_status="partial",
        details={"compensated": ["d"], "left": ["c", "b", "a"]},
    )
    await run.commit(status=ExecutionStatus.FAILED, error=error, left=left)
    return run


def leaving(task_id: str, position: int, **fields: object) -> LeftCompensation:
    values = {"task_id": task_id, "position": position, "failed": False, "retry": RetryPolicy(), **fields}
    return LeftCompensation.model_validate(values)


async def states(store: PostgresCompensationStore, run: Run) -> dict[str, str]:
    page = await store.list(run.launch.tenant, run.execution_id, limit=10, page_token=None)
    return {item.task_id: item.state for item in page.items}


def outcome(run: Run, task_id: str, number: int, *, ok: bool = True, final: bool = True) -> RetryOutcome:
    return RetryOutcome(
        tenant=run.launch.tenant,
        execution_id=run.launch.execution_id,
        task_id=task_id,
        attempt=number,
        ok=ok,
        final=final,
        code="" if ok else "AGAIN",
        message="" if ok else "still not",
    )


async def events(executions: PostgresExecutionStore, run: Run) -> list[tuple[str, str]]:
    found, _ = await executions.events(run.launch.tenant, run.execution_id, after_sequence=0, limit=1000)
    sequences = [event.sequence for event in found]
    assert sequences == list(range(1, len(sequences) + 1))
    return [(event.event_type, event.payload["task_id"]) for event in found if "saga" in event.event_type]


async def test_the_tick_that_closes_leaves_what_could_not_be_undone(
    store: PostgresCompensationStore, executions: PostgresExecutionStore, run: Run
) -> None:
    assert await states(store, run) == {"c": "failed", "b": "waiting", "a": "waiting"}
    first = (await store.list(run.launch.tenant, run.execution_id, limit=1, page_token=None)).items[0]
    assert (first.attempts, first.error_code, first.error_message) == (2, "BROKEN", "no\ufffdway")
    view = await executions.status(run.launch.tenant, run.execution_id)
    assert view.task_states == {
        "a": TaskState.COMPLETED,
        "b": TaskState.COMPLETED,
        "c": TaskState.COMPENSATING,
        "d": TaskState.COMPENSATED,
    }


async def test_they_come_in_pages(store: PostgresCompensationStore, run: Run) -> None:
    names: list[str] = []
    token: str | None = None
    while True:
        page = await store.list(run.launch.tenant, run.execution_id, limit=1, page_token=token)
        names += [item.task_id for item in page.items]
        token = page.next_page_token
        if token is None:
            break
    assert names == ["c", "b", "a"]
    with pytest.raises(InvalidParametersError):
        await store.list(run.launch.tenant, run.execution_id, limit=1, page_token="nonsense")


async def test_a_steps_result_is_found_while_it_is_undone_also_a_large_one(
    store: PostgresCompensationStore, dispatch: PostgresDispatchStore, run: Run
) -> None:
    tenant, execution_id = run.launch.tenant, run.execution_id
    assert await store.task(tenant, execution_id, "c") == TaskToUndo(agent_id="worker-1", result={"of": "c"})
    assert await store.task(tenant, execution_id, "nobody") == TaskToUndo()


async def test_a_large_result_is_read_by_its_reference(
    store: PostgresCompensationStore,
    dispatch: PostgresDispatchStore,
    definitions: PostgresDefinitionStore,
    executions: PostgresExecutionStore,
    journal: PostgresJournal,
    tenant: str,
) -> None:
    run = await plan_execution(definitions, executions, journal, tenant)
    await run.start()
    reference = await dispatch.put_payload(tenant, run.execution_id, b'{"large": true}')
    large = result("a", None).model_copy(update={"result_ref": reference})
    await run.commit(assigned=(attempt("a"),))
    await run.commit(done=(done("a"),), results=(large,))
    assert (await store.task(tenant, run.execution_id, "a")).result == {"large": True}


async def test_a_retry_that_succeeds_has_what_waited_for_it_retried(
    store: PostgresCompensationStore, executions: PostgresExecutionStore, run: Run
) -> None:
    tenant, execution_id = run.launch.tenant, run.execution_id
    request = await store.begin_retry(tenant, execution_id, "c", "alice")
    assert await store.begin_retry(tenant, execution_id, "c", "bob") == request, "the same one, begun again"
    pending = await store.next_retry(request)
    assert pending is not None
    assert (pending.task_id, pending.attempts, pending.retry) == ("c", 2, RetryPolicy())
    for _ in range(2):  # the second is a repetition
        await store.settle_retry(outcome(run, "c", 3))
    assert await states(store, run) == {"c": "compensated", "b": "retrying", "a": "waiting"}
    for name in ("b", "a"):
        pending = await store.next_retry(request)
        assert pending is not None
        assert pending.task_id == name
        await store.settle_retry(outcome(run, name, 1))
    assert await store.next_retry(request) is None
    view = await executions.status(tenant, execution_id)
    assert view.error_details is not None
    assert view.error_details["compensation_status"] == "completed"
    assert view.error_details["details"] == {"compensated": ["d", "c", "b", "a"], "left": []}
    assert set(view.task_states.values()) == {TaskState.COMPENSATED}
    assert await events(executions, run) == [
        ("saga.compensation_retried", "c"),
        ("saga.compensation_completed", "c"),
        ("saga.compensation_completed", "b"),
        ("saga.compensation_completed", "a"),
    ]


async def test_a_retry_that_fails_is_left_again(
    store: PostgresCompensationStore, executions: PostgresExecutionStore, run: Run
) -> None:
    request = await store.begin_retry(run.launch.tenant, run.execution_id, "c", "alice")
    await store.settle_retry(outcome(run, "c", 3, ok=False, final=False))
    assert (await states(store, run))["c"] == "retrying"
    await store.settle_retry(outcome(run, "c", 4, ok=False))
    assert (await states(store, run))["c"] == "failed"
    assert await store.next_retry(request) is None
    assert (await events(executions, run))[-1] == ("saga.compensation_failed", "c")
    again = await store.begin_retry(run.launch.tenant, run.execution_id, "c", "alice")
    assert again.request_id != request.request_id


async def test_marking_as_done_names_who_and_why_and_has_the_rest_retried(
    store: PostgresCompensationStore, executions: PostgresExecutionStore, run: Run
) -> None:
    tenant, execution_id = run.launch.tenant, run.execution_id
    answer, request = await store.mark_done(tenant, execution_id, "c", "alice", "by hand")
    assert (answer.state, answer.compensation_status) == ("marked_done", "partial")
    assert request is not None
    pending = await store.next_retry(request)
    assert pending is not None
    assert pending.task_id == "b"
    found, _ = await executions.events(tenant, execution_id, after_sequence=0, limit=1000)
    assert found[-1].payload == {"task_id": "c", "outcome": "marked_done", "actor": "alice", "reason": "by hand"}


async def test_what_waits_may_be_marked_as_done_and_sets_nothing_off(
    store: PostgresCompensationStore, run: Run
) -> None:
    _, request = await store.mark_done(run.launch.tenant, run.execution_id, "b", "alice", None)
    assert request is None
    assert await states(store, run) == {"c": "failed", "b": "marked_done", "a": "waiting"}


async def test_what_the_state_forbids_is_refused(store: PostgresCompensationStore, run: Run) -> None:
    tenant, execution_id = run.launch.tenant, run.execution_id
    with pytest.raises(InvalidTransitionError, match="before it: b, c"):
        await store.begin_retry(tenant, execution_id, "a", "alice")
    await store.begin_retry(tenant, execution_id, "c", "alice")
    with pytest.raises(InvalidTransitionError, match="it is being tried"):
        await store.mark_done(tenant, execution_id, "c", "alice", None)
    await store.settle_retry(outcome(run, "c", 3))
    with pytest.raises(InvalidTransitionError, match="it is undone"):
        await store.begin_retry(tenant, execution_id, "c", "alice")


async def test_strangers_and_what_is_not_there_look_alike(store: PostgresCompensationStore, run: Run) -> None:
    own, other = run.launch.tenant, "stranger"
    for tenant, execution_id in ((other, run.execution_id), (own, uuid.uuid4())):
        with pytest.raises(NotFoundError):
            await store.list(tenant, execution_id, limit=10, page_token=None)
        with pytest.raises(NotFoundError):
            await store.begin_retry(tenant, execution_id, "c", "alice")
        with pytest.raises(NotFoundError):
            await store.mark_done(tenant, execution_id, "c", "alice", None)
        assert await store.task(tenant, execution_id, "c") == TaskToUndo()
    with pytest.raises(NotFoundError):
        await store.begin_retry(own, run.execution_id, "d", "alice")
    stranger = RetryRequest(
        tenant=other,
        execution_id=str(run.execution_id),
        workflow_id=str(run.execution_id),
        trace_id=str(UUID(int=1)),
        task_id="c",
        request_id=str(UUID(int=1)),
    )
    assert await store.next_retry(stranger) is None
