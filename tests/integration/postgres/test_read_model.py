"""The rows that the API reads, after deltas that say several things of one task."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.contracts.execution import TaskState
from engine.contracts.kernel import Attempt, Done, Failed, Rewind, Started
from engine.contracts.views import TaskProgress
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.pool import Database
from engine.postgres.readmodel import task_changes
from tests.integration.postgres.builders import (
    BASE_MS,
    DIAMOND,
    Run,
    attempt,
    create_workflow,
    done,
    launch_of,
    plan_execution,
    result,
)

STEPS = ("rewind", "started", "done", "failed", "returned", "retried", "skipped", "cancelled", "assigned", "resent")
"""In the order in which a delta's fields are applied."""
AT_MS = BASE_MS + 60_000


@pytest.fixture
async def run(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, journal: PostgresJournal, tenant: str
) -> Run:
    return await plan_execution(definitions, executions, journal, tenant)


def failed(task_id: str, number: int = 1, retry: bool = False, code: str = "E") -> Failed:
    return Failed(
        task_id=task_id,
        attempt=number,
        agent_id="worker-1",
        code=code,
        message="no",
        at_ms=BASE_MS + 3000,
        retry_at_ms=BASE_MS + 9000 if retry else None,
    )


async def task(run: Run, executions: PostgresExecutionStore, task_id: str) -> TaskProgress:
    page = await executions.tasks(run.tenant, run.execution_id, limit=100, page_token=None)
    return next(item for item in page.items if item.task_id == task_id)


def milliseconds(item: TaskProgress) -> tuple[int | None, int | None]:
    return tuple(  # type: ignore[return-value]  # of two
        round(moment.timestamp() * 1000) if moment else None for moment in (item.started_at, item.completed_at)
    )


async def test_a_task_goes_from_assigned_over_started_to_done(run: Run, executions: PostgresExecutionStore) -> None:
    await run.commit(assigned=(attempt("a"),))
    assigned = await task(run, executions, "a")
    assert (assigned.state, assigned.agent_id, assigned.attempt) == (TaskState.RUNNING, "worker-1", 1)
    assert milliseconds(assigned) == (None, None)
    await run.commit(started=(Started(task_id="a", attempt=1, at_ms=BASE_MS + 1),))
    assert milliseconds(await task(run, executions, "a")) == (BASE_MS + 1, None)
    await run.commit(resent=(attempt("a"),))
    assert milliseconds(await task(run, executions, "a")) == (BASE_MS + 1, None)
    await run.commit(done=(done("a", at_ms=BASE_MS + 2000),), results=(result("a", "r"),))
    finished = await task(run, executions, "a")
    assert (finished.state, finished.result, finished.progress) == (TaskState.COMPLETED, "r", 1.0)
    assert milliseconds(finished) == (BASE_MS + 1000, BASE_MS + 2000)


async def test_a_lost_task_is_assigned_again_in_the_same_delta(run: Run, executions: PostgresExecutionStore) -> None:
    await run.commit(assigned=(attempt("a"),), started=())
    await run.commit(
        started=(Started(task_id="a", attempt=1, at_ms=BASE_MS),),
        failed=(failed("a", retry=True, code="AGENT_LOST"),),
        assigned=(attempt("a", 2, "worker-2"),),
    )
    again = await task(run, executions, "a")
    assert (again.state, again.attempt, again.agent_id) == (TaskState.RUNNING, 2, "worker-2")
    assert milliseconds(again) == (None, None)
    assert again.error is not None
    assert again.error["code"] == "AGENT_LOST"
    await run.commit(done=(done("a", 2),))
    assert (await task(run, executions, "a")).error is None


async def test_a_task_that_is_given_up_keeps_its_error_and_agent(run: Run, executions: PostgresExecutionStore) -> None:
    await run.commit(assigned=(attempt("a"),))
    await run.commit(failed=(failed("a"),), skipped=("b",), cancelled=("c",))
    given_up = await task(run, executions, "a")
    assert (given_up.state, given_up.agent_id) == (TaskState.FAILED, "worker-1")
    assert given_up.error is not None
    assert given_up.error["retryable"] is False
    assert milliseconds(given_up)[1] == BASE_MS + 3000
    assert (await task(run, executions, "b")).state is TaskState.SKIPPED
    assert (await task(run, executions, "c")).state is TaskState.CANCELLED


async def test_a_returned_task_is_pending_again(run: Run, executions: PostgresExecutionStore) -> None:
    await run.commit(assigned=(attempt("a"),))
    await run.commit(returned=(attempt("a"),))
    returned = await task(run, executions, "a")
    assert (returned.state, returned.agent_id, returned.attempt) == (TaskState.PENDING, None, 1)


async def test_a_rewind_forgets_results_and_raises_the_epoch(
    run: Run, executions: PostgresExecutionStore, database: Database
) -> None:
    await run.commit(done=(done("a"), done("b")), failed=(failed("c"),), results=(result("a", 1), result("b", 2)))
    rewind = Rewind(checkpoint_id=str(uuid.uuid4()), epoch=2, tasks=("b", "c"))
    await run.commit(rewind=rewind, epoch=2, assigned=(attempt("c"),))
    a, b, c = [await task(run, executions, task_id) for task_id in "abc"]
    assert (a.state, a.result) == (TaskState.COMPLETED, 1)
    assert (b.state, b.result, b.attempt, b.progress, b.agent_id) == (TaskState.PENDING, None, 0, 0.0, None)
    assert milliseconds(b) == (None, None)
    assert (c.state, c.error) == (TaskState.RUNNING, None)
    assert (await executions.status(run.tenant, run.execution_id)).epoch == 2


def delta_step(step: str, task_id: str, number: int, retry: bool) -> dict[str, Any]:
    here = Attempt(task_id=task_id, agent_id=f"worker-{number}", attempt=number)
    match step:
        case "rewind":
            return {"rewind": Rewind(checkpoint_id=str(uuid.uuid4()), epoch=1, tasks=(task_id,))}
        case "started":
            return {"started": (Started(task_id=task_id, attempt=number, at_ms=BASE_MS + number),)}
        case "done":
            finished = Done(
                task_id=task_id, attempt=number, agent_id=here.agent_id, started_at_ms=BASE_MS, at_ms=BASE_MS + 1
            )
            return {"done": (finished,)}
        case "failed":
            return {"failed": (failed(task_id, number, retry),)}
        case "retried" | "skipped" | "cancelled":
            return {step: (task_id,)}
        case _:
            return {step: (here,)}


def merged(steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    for step in steps:
        for name, value in step.items():
            if name != "rewind":
                delta[name] = delta.get(name, ()) + value
            elif name in delta:
                delta[name] = value.model_copy(update={"tasks": delta[name].tasks + value.tasks})
            else:
                delta[name] = value
    return delta


Step = tuple[str, str, int, bool]
AFTER_DONE = set(STEPS[STEPS.index("done") + 1 :])


def in_order(steps: list[Step]) -> list[dict[str, Any]]:
    """As a delta has them; what is done in a delta is not touched by its later fields."""
    finished = {task_id for step, task_id, _, _ in steps if step == "done"}
    kept = [step for step in steps if not (step[1] in finished and step[0] in AFTER_DONE)]
    return [delta_step(*step) for step in sorted(kept, key=lambda step: STEPS.index(step[0]))]


one_step = st.tuples(st.sampled_from(STEPS), st.sampled_from(DIAMOND), st.integers(1, 3), st.booleans())
one_delta = st.lists(one_step, max_size=8, unique_by=lambda step: (step[0], step[1])).map(in_order)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deltas=st.lists(one_delta, max_size=3))
async def test_a_folded_delta_writes_what_its_steps_write_one_after_the_other(
    deltas: list[list[dict[str, Any]]],
    definitions: PostgresDefinitionStore,
    executions: PostgresExecutionStore,
    journal: PostgresJournal,
    database: Database,
) -> None:
    tenant = f"t-{uuid.uuid4().hex[:16]}"
    workflow_id = await create_workflow(definitions, tenant)

    async def rows(ticks: Sequence[dict[str, Any]]) -> list[tuple[object, ...]]:
        run = Run(journal, launch_of(tenant, workflow_id))
        await executions.insert_planning(
            tenant, run.launch, {}, {}, "someone", allow_concurrent=True, request_hash=None
        )
        for number, fields in enumerate(ticks, start=1):
            proposal = run.proposal(number, **fields)
            delta = proposal.delta.model_copy(update={"at_ms": AT_MS})
            await journal.commit(proposal.model_copy(update={"delta": delta}))
        async with database.tenant_connection(tenant) as connection:
            found = await connection.fetch(
                "SELECT task_id, state, attempt, agent_id, progress, assigned_at, started_at, completed_at, error"
                "  FROM execution_tasks WHERE execution_id = $1 ORDER BY task_id",
                run.execution_id,
            )
        return [tuple(str(value) for value in row.values()) for row in found]

    folded, stepwise = await asyncio.gather(
        rows([merged(steps) for steps in deltas]), rows([step for steps in deltas for step in steps])
    )
    assert folded == stepwise


def test_a_delta_changes_each_task_at_most_once(tenant: str) -> None:
    run = Run(None, launch_of(tenant, uuid.uuid4()))  # type: ignore[arg-type]  # nothing is committed
    everything = merged([delta_step(step, task_id, 1, True) for step in STEPS for task_id in DIAMOND])
    changes = task_changes(run.proposal(1, **everything))
    assert [change.task_id for change in changes] == list(DIAMOND)
    assert {change.state for change in changes} == {TaskState.RUNNING}
