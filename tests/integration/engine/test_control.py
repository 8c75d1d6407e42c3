"""Pausing, resuming, cancelling: through control rows, bare signals and Temporal's own means."""

import uuid
from uuid import UUID

import pytest

from engine.contracts.execution import ExecutionStatus, TaskState
from tests.integration.engine.bench import DIAMOND, Bench, chain, definition, types

# The first lasts until a pause has certainly got through.
SLOW = [{**task, "input": {"duration_ms": 2_000 if task["id"] == "a" else 50}} for task in DIAMOND]


async def test_a_bare_pause_signal_pauses_and_a_bare_resume_goes_on(bench: Bench) -> None:
    execution_id = await bench.start(definition(*SLOW))
    await bench.until_event(execution_id, "agent.task_assigned", task_id="a")
    await bench.handle(execution_id).signal("pause")
    paused = await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    assert paused.latest_checkpoint_id is not None
    await bench.until_event(execution_id, "task.completed", task_id="a")
    assert "agent.task_assigned" not in types(await bench.events(execution_id), "b")
    await bench.handle(execution_id).signal("resume")
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    events = await bench.events(execution_id)
    assert types(events).count("agent.task_assigned") == 4
    assert types(events).count("task.completed") == 4
    await bench.assert_replays(execution_id)


async def test_a_requested_pause_makes_the_checkpoint_that_was_named(bench: Bench) -> None:
    execution_id = await bench.start(definition(*SLOW))
    await bench.until_event(execution_id, "agent.task_assigned", task_id="a")
    checkpoint_id = str(uuid.uuid4())
    await bench.ask(execution_id, "pause", checkpoint_id)
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    view = await bench.stores.executions.checkpoint(bench.tenant, execution_id, UUID(checkpoint_id))
    assert [item["task_id"] for item in view.in_flight] == ["a"]
    await bench.ask(execution_id, "resume")
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED


async def test_a_run_that_is_busy_inside_one_workflow_task_obeys_a_pause(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A host that knows no chains needs a tick for each task: that takes long enough for a pause to come.
    monkeypatch.setattr("orchestration_agent.host.FEATURES", ())
    await bench.stop()
    await bench.start_host()
    execution_id = await bench.start(definition(*chain(400), agents=1))
    await bench.until_event(execution_id, "task.completed", task_id="t5")
    await bench.ask(execution_id, "pause")
    paused = await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    assert paused.performance_metrics.tasks_completed < 400
    await bench.ask(execution_id, "resume")
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    assert types(await bench.events(execution_id)).count("task.completed") == 400


async def test_resuming_from_an_earlier_checkpoint_runs_the_later_tasks_again_in_the_next_epoch(bench: Bench) -> None:
    tasks = chain(4, input={"duration_ms": 50})
    for number in (1, 3):  # each leaves time for what is asked while it runs
        tasks[number]["input"] = {"duration_ms": 1_500}
    execution_id = await bench.start(definition(*tasks, agents=1))
    first = str(uuid.uuid4())
    await bench.until_event(execution_id, "task.completed", task_id="t0")
    await bench.ask(execution_id, "checkpoint", first)
    await bench.until_event(execution_id, "workflow.checkpoint_created", checkpoint_id=first)
    await bench.until_event(execution_id, "task.completed", task_id="t2")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.ask(execution_id, "resume", first)
    done = await bench.until_closed(execution_id)
    assert (done.status, done.epoch) == (ExecutionStatus.COMPLETED, 2)
    events = await bench.events(execution_id)
    completed = [(e.epoch, e.payload["task_id"]) for e in events if e.event_type == "task.completed"]
    assert completed[0] == (1, "t0")
    assert completed[-1] == (2, "t3")
    assert (1, "t2") in completed
    assert (2, "t2") in completed
    await bench.assert_replays(execution_id)


async def test_cancel_stops_what_runs(bench: Bench) -> None:
    execution_id = await bench.start(definition({"id": "a", "input": {"duration_ms": 60_000}}))
    await bench.until_event(execution_id, "agent.task_started", task_id="a")
    await bench.ask(execution_id, "cancel")
    done = await bench.until_status(execution_id, ExecutionStatus.CANCELLED)
    assert done.task_states == {"a": TaskState.CANCELLED}


async def test_temporals_own_cancellation_is_an_orderly_cancel(bench: Bench) -> None:
    execution_id = await bench.start(definition({"id": "a", "input": {"duration_ms": 60_000}}))
    await bench.until_event(execution_id, "agent.task_started", task_id="a")
    await bench.handle(execution_id).cancel()
    await bench.until_status(execution_id, ExecutionStatus.CANCELLED)
    await bench.assert_replays(execution_id)


async def test_cancelling_while_paused_closes(bench: Bench) -> None:
    execution_id = await bench.start(definition(*SLOW))
    await bench.until_event(execution_id, "agent.task_assigned", task_id="a")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.ask(execution_id, "cancel")
    await bench.until_status(execution_id, ExecutionStatus.CANCELLED)


async def test_the_progress_query_says_where_it_stands(bench: Bench) -> None:
    execution_id = await bench.start(definition({"id": "a", "input": {"duration_ms": 2_000}}))
    await bench.until_event(execution_id, "agent.task_started", task_id="a")
    progress = await bench.handle(execution_id).query("progress")
    assert progress["status"] == "executing"
    assert progress["in_flight"] == [{"task": "a", "agent": "worker-1"}]
    await bench.ask(execution_id, "cancel")
    await bench.until_closed(execution_id)


async def test_a_run_goes_on_as_a_new_one_before_its_history_is_long(bench: Bench) -> None:
    tasks = chain(12, input={"duration_ms": 150})
    execution_id = await bench.start(definition(*tasks, agents=1), history_events_max=15)
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    events = await bench.events(execution_id)
    assert types(events).count("task.completed") == 12
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    assert await bench.assert_replays(execution_id) > 1


async def test_a_pause_and_its_resume_may_lie_in_different_runs(bench: Bench) -> None:
    tasks = chain(8, input={"duration_ms": 40})
    for number in (2, 4):  # each leaves time for the pause that is asked while it runs
        tasks[number]["input"] = {"duration_ms": 1_500}
    execution_id = await bench.start(definition(*tasks, agents=1), history_events_max=15)
    for n in (1, 3):
        await bench.until_event(execution_id, "task.completed", task_id=f"t{n}")
        await bench.ask(execution_id, "pause")
        await bench.until_status(execution_id, ExecutionStatus.PAUSED)
        await bench.ask(execution_id, "resume")
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    assert types(await bench.events(execution_id)).count("task.completed") == 8
    assert await bench.assert_replays(execution_id) > 1
