"""The tick journal against a real server."""

import asyncio
import uuid

import pytest

from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus, TaskState
from engine.contracts.kernel import Checkpoint, Control, Delta, Metrics, TerminalError
from engine.errors import InvalidParametersError, InvalidTransitionError, NotFoundError
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import ANSWER_TICKS_MAX, PostgresJournal
from engine.postgres.pool import Database
from tests.integration.postgres.builders import (
    BASE_MS,
    Run,
    attempt,
    done,
    event,
    launch_of,
    plan_execution,
    result,
)


@pytest.fixture
async def run(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, journal: PostgresJournal, tenant: str
) -> Run:
    return await plan_execution(definitions, executions, journal, tenant)


async def test_the_next_tick_is_stored_and_answered_as_it_is(run: Run, executions: PostgresExecutionStore) -> None:
    proposal = run.proposal(
        1,
        status=ExecutionStatus.EXECUTING,
        current_phase="running",
        assigned=(attempt("a"),),
        audit=(event(AuditEventType.TASK_ASSIGNED, task_id="a"),),
    )
    committed = await run.journal.commit(proposal)
    assert committed.own
    assert committed.ticks[0] is proposal.delta
    assert not committed.more
    assert committed.control is None
    assert committed.last_sequence == 2
    assert committed.now_ms > BASE_MS
    assert committed.status is ExecutionStatus.EXECUTING
    assert Delta.model_validate_json(committed.stored_texts[0]) == proposal.delta
    view = await executions.status(run.tenant, run.execution_id)
    assert view.status is ExecutionStatus.EXECUTING
    assert view.current_phase == "running"
    assert view.task_states["a"] is TaskState.RUNNING


async def test_a_stored_tick_is_answered_and_nothing_changes(run: Run, executions: PostgresExecutionStore) -> None:
    await run.commit(status=ExecutionStatus.EXECUTING, assigned=(attempt("a"),))
    await run.commit(done=(done("a"),), results=(result("a", 1),))
    before = await executions.status(run.tenant, run.execution_id)
    other = run.proposal(
        1, status=ExecutionStatus.FAILED, assigned=(attempt("b"),), audit=(event(AuditEventType.TASK_ASSIGNED),)
    )
    committed = await run.journal.commit(other)
    assert not committed.own
    assert committed.ticks == tuple(proposal.delta for proposal in run.proposals)
    assert committed.stored_texts == tuple(
        proposal.delta.model_dump_json(exclude_defaults=True) for proposal in run.proposals
    )
    assert not committed.more
    after = await executions.status(run.tenant, run.execution_id)
    assert (after.status, after.task_states) == (before.status, before.task_states)
    events, _ = await executions.events(run.tenant, run.execution_id, after_sequence=0, limit=100)
    assert len(events) == 1


async def test_many_stored_ticks_are_answered_in_pages(run: Run) -> None:
    for _ in range(ANSWER_TICKS_MAX + 5):
        await run.commit(consumed=("1-0",))
    first = await run.journal.commit(run.proposal(1))
    assert [delta.tick for delta in first.ticks] == list(range(1, ANSWER_TICKS_MAX + 1))
    assert first.more
    second = await run.journal.commit(run.proposal(ANSWER_TICKS_MAX + 1))
    assert [delta.tick for delta in second.ticks] == list(range(ANSWER_TICKS_MAX + 1, ANSWER_TICKS_MAX + 6))
    assert not second.more


async def test_a_page_of_large_ticks_ends_at_a_mebibyte_but_has_at_least_one(run: Run) -> None:
    large = ("x" * (900 * 1024),)
    await run.commit(consumed=large)
    await run.commit(consumed=large)
    await run.commit(consumed=large)
    committed = await run.journal.commit(run.proposal(1))
    assert [delta.tick for delta in committed.ticks] == [1, 2]
    assert committed.more
    committed = await run.journal.commit(run.proposal(3))
    assert [delta.tick for delta in committed.ticks] == [3]


async def test_a_gap_in_the_ticks_is_refused(run: Run) -> None:
    await run.commit(status=ExecutionStatus.EXECUTING)
    with pytest.raises(InvalidTransitionError) as refused:
        await run.journal.commit(run.proposal(3))
    assert refused.value.data == {"last_tick": 1}
    assert (await run.commit(consumed=("1-1",))).own


async def test_of_two_workers_with_one_tick_one_stores_it_and_both_hear_the_same(run: Run) -> None:
    proposals = [run.proposal(1, consumed=(f"{n}-0",)) for n in range(8)]
    answers = await asyncio.gather(*(run.journal.commit(proposal) for proposal in proposals))
    assert [answer.own for answer in answers].count(True) == 1
    assert [answer.ticks for answer in answers] == [answers[0].ticks] * len(answers)


async def test_events_get_sequences_without_a_gap_in_the_order_given(
    run: Run, executions: PostgresExecutionStore
) -> None:
    await run.commit(audit=tuple(event(AuditEventType.TASK_ASSIGNED, at_ms=BASE_MS + n, n=n) for n in range(5)))
    await run.commit(audit=(event(AuditEventType.TASK_COMPLETED, at_ms=BASE_MS + 7_123, n=5),), epoch=2)
    events, more = await executions.events(run.tenant, run.execution_id, after_sequence=1, limit=100)
    assert not more
    assert [item.sequence for item in events] == [2, 3, 4, 5, 6, 7]
    assert [item.payload["n"] for item in events] == [0, 1, 2, 3, 4, 5]
    assert [item.epoch for item in events] == [1, 1, 1, 1, 1, 2]
    assert int(events[-1].timestamp.timestamp() * 1000) == BASE_MS + 7_123
    assert events[-1].recorded_at > events[-1].timestamp
    assert str(events[-1].trace_id) == run.launch.trace_id


async def test_a_closing_tick_sets_error_and_end(run: Run, executions: PostgresExecutionStore) -> None:
    await run.start()
    await run.commit(
        status=ExecutionStatus.FAILED,
        error=TerminalError(error_code="TASK_FAILED", error_message="no\x00good", failed_task="a"),
        metrics=Metrics(tasks_failed=1),
    )
    view = await executions.status(run.tenant, run.execution_id)
    assert view.status is ExecutionStatus.FAILED
    assert view.completed_at is not None
    assert view.error_details is not None
    assert view.error_details["error_message"] == "no\ufffdgood"


async def test_after_the_close_nothing_more_is_stored(run: Run) -> None:
    await run.commit(status=ExecutionStatus.CANCELLED)
    committed = await run.journal.commit(run.proposal(2, status=ExecutionStatus.EXECUTING))
    assert not committed.own
    assert committed.ticks == ()
    assert not committed.more
    assert committed.status is ExecutionStatus.CANCELLED
    again = await run.journal.commit(run.proposal(1))
    assert [delta.tick for delta in again.ticks] == [1]


async def test_what_agents_report_never_stops_a_tick(run: Run, executions: PostgresExecutionStore) -> None:
    strange = {"nul": "a\x00b", "backslash": "\\u0000", "big": 2**63, "float": 0.1, "deep": [[[{}]]]}
    committed = await run.commit(
        done=(done("a"),),
        results=(result("a", strange),),
        audit=(event(AuditEventType.TASK_COMPLETED, result=strange),),
        current_phase="x\x00" * 300,
    )
    assert committed.own
    page = await executions.tasks(run.tenant, run.execution_id, limit=1, page_token=None)
    assert page.items[0].result == strange
    events, _ = await executions.events(run.tenant, run.execution_id, after_sequence=1, limit=1)
    assert events[0].payload["result"] == strange


async def test_a_checkpoint_is_stored_with_its_tick(run: Run, executions: PostgresExecutionStore) -> None:
    checkpoint_id = uuid.uuid4()
    await run.start()
    await run.commit(
        checkpoint=Checkpoint(
            checkpoint_id=str(checkpoint_id), reason="pause", completed=("a",), in_flight=(attempt("b"),)
        ),
        status=ExecutionStatus.PAUSED,
    )
    view = await executions.checkpoint(run.tenant, run.execution_id, checkpoint_id)
    assert view.completed_tasks == ("a",)
    assert view.in_flight == (attempt("b").model_dump(exclude={"after"}),)
    assert view.recovery_instructions["run_again"] == ["b"]
    assert view.reason == "pause"
    assert (await executions.status(run.tenant, run.execution_id)).latest_checkpoint_id == checkpoint_id


async def test_a_control_request_is_answered_until_a_tick_has_seen_it(
    run: Run, executions: PostgresExecutionStore
) -> None:
    await run.start()
    asked = Control(request_id="r1", action="pause", checkpoint_id=str(uuid.uuid4()), reason="lunch")
    await executions.request_control(run.tenant, run.execution_id, asked)
    assert (await run.commit(consumed=("1-0",))).control == asked
    assert (await run.commit(control_seen="another")).control == asked
    obeyed = await run.commit(control_seen="r1", status=ExecutionStatus.PAUSED)
    assert obeyed.control is None
    assert (await run.commit(consumed=("2-0",))).control is None
    assert (await run.journal.commit(run.proposal(1))).control is None


async def test_ticks_are_loaded_by_number(run: Run) -> None:
    for n in range(4):
        await run.commit(consumed=(f"{n}-0",))
    loaded = await run.journal.load_stream_writes(run.tenant, run.execution_id, [4, 2, 99])
    assert loaded == [run.proposals[1].delta, run.proposals[3].delta]
    with pytest.raises(InvalidParametersError):
        await run.journal.load_stream_writes(run.tenant, run.execution_id, range(2000))


async def test_base_tick_never_goes_back(run: Run, database: Database) -> None:
    await run.commit(consumed=("1-0",), base_tick=0)
    await run.commit(consumed=("2-0",), base_tick=1)
    await run.commit(consumed=("3-0",), base_tick=0)
    async with database.tenant_connection(run.tenant) as connection:
        row = await connection.fetchrow(
            "SELECT base_tick, last_tick FROM workflow_executions WHERE execution_id = $1", run.execution_id
        )
    assert row is not None
    assert (row["base_tick"], row["last_tick"]) == (1, 3)


async def test_an_unknown_execution_is_not_found(run: Run, journal: PostgresJournal, tenant: str) -> None:
    unknown = Run(journal, launch_of(tenant, run.workflow_id))
    with pytest.raises(NotFoundError):
        await unknown.commit()
    malformed = run.proposal(1).model_copy(update={"execution_id": "nonsense"})
    with pytest.raises(InvalidParametersError):
        await journal.commit(malformed)
