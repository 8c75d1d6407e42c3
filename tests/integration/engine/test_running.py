"""Executions on the real engine, in one process: the main paths."""

from engine.contracts.execution import ExecutionStatus, TaskState
from tests.integration.engine.bench import DIAMOND, Bench, chain, definition, types


async def test_a_diamond_overlaps_its_branches_and_status_and_audit_tell_the_same_story(bench: Bench) -> None:
    tasks = [{**task, "input": {"duration_ms": 150, "result": task["id"].upper()}} for task in DIAMOND]
    execution_id = await bench.start(definition(*tasks))
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED
    assert set(view.task_states.values()) == {TaskState.COMPLETED}
    events = await bench.events(execution_id)
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    started = {e.payload["task_id"]: e.timestamp for e in events if e.event_type == "agent.task_started"}
    ended = {e.payload["task_id"]: e.timestamp for e in events if e.event_type == "task.completed"}
    assert max(started["b"], started["c"]) < min(ended["b"], ended["c"])
    assert started["d"] >= max(ended["b"], ended["c"])
    assert types(events)[:1] == ["workflow.status_changed"]
    assert types(events)[-1] == "workflow.status_changed"
    results = {e.payload["task_id"]: e.payload["result"] for e in events if e.event_type == "task.completed"}
    assert results == {"a": "A", "b": "B", "c": "C", "d": "D"}


async def test_a_chain_of_fast_tasks_needs_few_history_events(bench: Bench) -> None:
    execution_id = await bench.start(definition(*chain(10)))
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED
    handle = bench.client.get_workflow_handle(f"{bench.tenant}/{execution_id}")
    history = await handle.fetch_history()
    assert len(history.events) < 40
