"""What fails, hangs and vanishes, on the real engine in one process."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from engine.concurrency import end_all
from engine.contracts.execution import ExecutionStatus, TaskState
from engine.contracts.kernel import Checkpoint, TickProposal
from engine.recovery.reconciler import Reconciler
from tests.integration.engine.bench import Bench, chain, definition, types
from workflows.kernel.decide import decide
from workflows.kernel.inbox import Inbox
from workflows.kernel.state import RunState
from workflows.kernel.transitions import apply_delta
from workflows.policies.supervisor import SupervisorPolicy

QUICK_RETRY = {"max_attempts": 3, "initial_delay_seconds": 0.05}


async def test_a_failed_task_is_retried_and_the_attempts_are_in_the_audit_log(bench: Bench) -> None:
    execution_id = await bench.start(definition({"id": "a", "input": {"fail_times": 2}, "retry_policy": QUICK_RETRY}))
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    outcomes = [e.payload["status"] for e in await bench.events(execution_id) if e.event_type == "task.completed"]
    assert outcomes == ["failed", "failed", "success"]
    await bench.assert_replays(execution_id)


async def test_a_task_that_fails_for_good_ends_the_execution_with_its_reason(bench: Bench) -> None:
    tasks: list[dict[str, Any]] = [
        {"id": "a", "input": {"fail": "no such file"}, "retry_policy": "none"},
        {"id": "b", "depends_on": ["a"]},
    ]
    execution_id = await bench.start(definition(*tasks))
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.FAILED
    assert done.error_details is not None
    assert done.error_details["error_code"] == "TASK_FAILED"
    assert done.error_details["failed_task"] == "a"
    assert "no such file" in done.error_details["error_message"]
    assert done.task_states == {"a": TaskState.FAILED, "b": TaskState.CANCELLED}


async def test_a_task_that_hangs_times_out_and_runs_again(bench: Bench) -> None:
    task = {"id": "a", "timeout_seconds": 1, "input": {"duration_ms": 60_000}, "retry_policy": {"max_attempts": 1}}
    execution_id = await bench.start(definition(task))
    done = await bench.until_closed(execution_id)
    assert done.error_details is not None
    assert done.error_details["details"]["code"] == "TASK_TIMEOUT"


async def test_an_execution_ends_at_its_own_timeout(bench: Bench) -> None:
    execution_id = await bench.start(definition({"id": "a", "input": {"duration_ms": 60_000}}), timeout=1)
    done = await bench.until_closed(execution_id)
    assert done.error_details is not None
    assert done.error_details["error_code"] == "EXECUTION_TIMEOUT"


async def test_the_tasks_of_a_host_that_vanishes_are_taken_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    other = await bench.start_host()
    tasks = [{"id": f"t{n}", "input": {"duration_ms": 1_500}} for n in range(2)]
    execution_id = await bench.start(definition(*tasks))
    for n in range(2):
        await bench.until_event(execution_id, "agent.task_started", task_id=f"t{n}")
    # No goodbye: the loops just end, as in a killed process.
    task = bench.hosts.pop(other)
    monkeypatch.setattr(other, "_wind_down", _nothing)
    await end_all([task])
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    events = await bench.events(execution_id)
    assert types(events).count("agent.disconnected") == 1
    successes = [e.payload["task_id"] for e in events
                 if e.event_type == "task.completed" and e.payload["status"] == "success"]  # fmt: skip
    assert sorted(successes) == ["t0", "t1"]
    await bench.assert_replays(execution_id)


async def _nothing(*_: object) -> None:
    """A killed process does not wind down."""


async def test_a_journal_that_is_ahead_of_temporals_history_is_adopted(bench: Bench) -> None:
    """As after a worker that died between its commit and the end of its workflow task."""
    tasks = [
        {"id": "a", "input": {"duration_ms": 3_000}},
        {"id": "b", "depends_on": ["a"], "input": {"duration_ms": 300}},
    ]
    launch = await bench.plan_row(definition(*tasks))
    await bench.launcher.launch(launch)
    execution_id = launch.execution_id
    uid = UUID(execution_id)
    await bench.until_event(uid, "agent.task_started", task_id="a")
    state = RunState(launch)
    for delta in await bench.stores.journal.load_stream_writes(bench.tenant, uid, range(1, 100)):
        apply_delta(state, delta)
    inbox = Inbox()
    stale = state.tick
    decision = decide(state, SupervisorPolicy(), inbox, state.covered_until_ms)
    decision.change.checkpoint(
        Checkpoint(checkpoint_id="00000000-0000-4000-8000-0000000000cc", reason="requested", completed=())
    )
    proposal = TickProposal(
        tenant=bench.tenant,
        execution_id=execution_id,
        workflow_id=launch.workflow_id,
        trace_id=launch.trace_id,
        tick=state.tick,
        base_tick=stale,
        epoch=1,
        partition=launch.partition,
        delta=decision.change.delta(),
    )
    committed = await bench.stores.journal.commit(proposal)
    assert committed.own
    await Reconciler(bench.stores.maintenance, bench.stores.executions, bench.launcher).catch_up(quiet_seconds=0.0)
    done = await bench.until_closed(uid)
    assert done.status is ExecutionStatus.COMPLETED
    assert types(await bench.events(uid)).count("task.completed") == 2
    outcome = await bench.handle(uid).result()
    assert outcome["tasks_completed"] == 2
    await bench.assert_replays(uid)


async def test_an_execution_that_was_never_launched_is_launched_by_the_reconciler(bench: Bench) -> None:
    launch = await bench.plan_row(definition(*chain(2)))
    done = await bench.until_closed(UUID(launch.execution_id))
    assert done.status is ExecutionStatus.COMPLETED


async def test_a_run_that_somebody_terminated_is_closed_in_the_read_model(bench: Bench) -> None:
    execution_id = await bench.start(definition({"id": "a", "input": {"duration_ms": 60_000}}))
    await bench.until_event(execution_id, "agent.task_started", task_id="a")
    await bench.handle(execution_id).terminate("by hand")
    reconciler = Reconciler(bench.stores.maintenance, bench.stores.executions, bench.launcher)

    async def closed() -> bool:
        await reconciler.close_what_temporal_closed()
        return (await bench.status(execution_id)).status is ExecutionStatus.CANCELLED

    await bench.until(closed, "cancelled in the read model")


async def test_fifty_executions_at_once_all_complete(bench: Bench) -> None:
    document = definition(*chain(3), agents=1)
    ids = await asyncio.gather(*(bench.start({**document, "name": f"many-{n}"}) for n in range(50)))
    for execution_id in ids:
        assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
