"""Compensation on the real engine: order, failures, cancellation, losses, and operators."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from engine.concurrency import end_all
from engine.contracts.execution import ExecutionStatus, TaskState
from engine.contracts.views import ExecutionView
from orchestration_agent.host import AgentHost
from tests.integration.engine.bench import Bench, definition

QUICK = {"max_attempts": 2, "initial_delay_seconds": 0.05}
ONCE = {"max_attempts": 1}


def step(name: str, *deps: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": name,
        "depends_on": list(deps),
        "compensation_action": f"undo_{name}",
        "retry_policy": QUICK,
        **fields,
    }


def saga(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return definition(*tasks, orchestration_pattern="saga", **fields)


THREE = (step("t1"), step("t2", "t1"), step("t3", "t2", input={"fail": "no seat left"}))


async def compensated(bench: Bench, execution_id: UUID) -> list[str]:
    found = [e for e in await bench.events(execution_id) if e.event_type == "saga.compensation_completed"]
    return [event.payload["task_id"] for event in found]


def details(view: ExecutionView) -> dict[str, Any]:
    assert view.error_details is not None
    return view.error_details


@pytest.mark.parametrize("pattern", ["saga", "supervisor", "handoff", "hierarchical"])
async def test_what_was_done_is_undone_in_reverse_order_when_a_step_fails(bench: Bench, pattern: str) -> None:
    execution_id = await bench.start(definition(*THREE, orchestration_pattern=pattern))
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.FAILED
    assert await compensated(bench, execution_id) == ["t2", "t1"]
    assert details(done)["failed_task"] == "t3"
    assert details(done)["compensation_status"] == "completed"
    assert done.task_states == {
        "t1": TaskState.COMPENSATED,
        "t2": TaskState.COMPENSATED,
        "t3": TaskState.FAILED,
    }
    started = await bench.until_event(execution_id, "saga.compensation_started")
    assert started.payload["failed_task_id"] == "t3"
    assert started.payload["compensation_tasks"] == ["t2", "t1"]
    await bench.assert_replays(execution_id)


async def test_a_step_that_vanished_with_its_host_is_undone_and_may_say_that_it_never_happened(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its attempts end with the processes that had them, until it is given up."""
    last = step("t3", "t2", input={"duration_ms": 60_000, "compensation": {"never_happened": True}})
    execution_id = await bench.start(
        saga(step("t1"), step("t2", "t1"), {**last, "timeout_seconds": 1, "retry_policy": ONCE})
    )
    done = await bench.until_closed(execution_id)
    assert await compensated(bench, execution_id) == ["t3", "t2", "t1"]
    never = await bench.until_event(execution_id, "saga.compensation_completed", task_id="t3")
    assert never.payload["outcome"] == "never_happened"
    assert details(done)["compensation_status"] == "completed"


async def test_cancelling_undoes_first_and_a_second_cancellation_does_not_stop_it(bench: Bench) -> None:
    slow = {"compensation": {"duration_ms": 1_500}}
    tasks = (step("t1", input=slow), step("t2", "t1", input={"duration_ms": 60_000}))
    execution_id = await bench.start(saga(*tasks))
    await bench.until_event(execution_id, "agent.task_started", task_id="t2")
    await bench.ask(execution_id, "cancel")
    await bench.until_event(execution_id, "saga.compensation_completed", task_id="t2")
    now = await bench.status(execution_id)
    assert now.status is ExecutionStatus.EXECUTING
    assert now.current_phase == "compensating: t1"
    assert now.task_states["t1"] is TaskState.COMPENSATING
    await bench.handle(execution_id).cancel()
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.CANCELLED
    assert await compensated(bench, execution_id) == ["t2", "t1"]
    assert details(done)["compensation_status"] == "completed"


async def test_a_host_that_is_lost_while_it_undoes_is_followed_by_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = (step("t1", input={"compensation": {"duration_ms": 2_500}}), step("t2", "t1", input={"fail": "no"}))
    execution_id = await bench.start(saga(*tasks, agents=1))

    async def undoing() -> AgentHost | None:
        view = await bench.status(execution_id)
        running = [host for host in bench.hosts if host._board.running]
        return running[0] if view.task_states["t1"] is TaskState.COMPENSATING and running else None

    host: AgentHost = await bench.until(undoing, "the compensation runs")
    await bench.start_host()
    task = bench.hosts.pop(host)
    monkeypatch.setattr(host, "_wind_down", _nothing)
    await end_all([task])
    done = await bench.until_closed(execution_id)
    assert await compensated(bench, execution_id) == ["t1"]
    assert details(done)["compensation_status"] == "completed"


async def _nothing(*_: object) -> None:
    """A killed process does not wind down."""


async def test_undoing_goes_on_in_a_new_run(bench: Bench) -> None:
    steps = [step(f"s{n}", *([f"s{n - 1}"] if n else [])) for n in range(12)]
    last = {"id": "last", "depends_on": ["s11"], "input": {"fail": "no"}, "retry_policy": ONCE}
    execution_id = await bench.start(saga(*steps, last), history_events_max=30)
    await bench.until_closed(execution_id)
    assert await compensated(bench, execution_id) == [f"s{n}" for n in reversed(range(12))]
    assert await bench.assert_replays(execution_id) > 1


async def test_independent_steps_are_undone_side_by_side(bench: Bench) -> None:
    slow = {"compensation": {"duration_ms": 700}}
    tasks = [step(name, input=slow) for name in ("a", "b", "c")]
    last = {"id": "last", "depends_on": ["a", "b", "c"], "input": {"fail": "no"}, "retry_policy": ONCE}
    document = saga(*tasks, last, agents=3, pattern_config={"undo_order": "side_by_side"})
    execution_id = await bench.start(document)

    async def all_at_once() -> bool:
        states = (await bench.status(execution_id)).task_states
        return all(states[name] is TaskState.COMPENSATING for name in ("a", "b", "c"))

    await bench.until(all_at_once, "three at once")
    await bench.until_closed(execution_id)
    assert sorted(await compensated(bench, execution_id)) == ["a", "b", "c"]


async def partial(bench: Bench, fail_times: int = 2) -> UUID:
    """t2 cannot be undone; so t1, on which it depends, is not."""
    cannot = {"compensation": {"fail_times": fail_times}}
    tasks = (step("t1"), step("t2", "t1", input=cannot), step("t3", "t2", input={"fail": "no"}))
    execution_id = await bench.start(saga(*tasks))
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.FAILED
    assert details(done)["compensation_status"] == "partial"
    assert details(done)["details"]["left"] == ["t2", "t1"]
    return execution_id


async def test_what_keeps_failing_is_left_with_an_alert_and_an_operator_can_have_it_retried(bench: Bench) -> None:
    execution_id = await partial(bench)
    alert = await bench.until_event(execution_id, "saga.compensation_failed")
    assert alert.payload["task_id"] == "t2"
    store = bench.stores.compensations
    page = await store.list(bench.tenant, execution_id, limit=10, page_token=None)
    assert [(item.task_id, item.state, item.attempts) for item in page.items] == [
        ("t2", "failed", 2),
        ("t1", "waiting", 0),
    ]
    await bench.launcher.retry_compensations(await store.begin_retry(bench.tenant, execution_id, "t2", "alice"))

    async def undone() -> bool:
        return bool(details(await bench.status(execution_id))["compensation_status"] == "completed")

    await bench.until(undone, "both are undone")
    assert await compensated(bench, execution_id) == ["t2", "t1"]
    view = await bench.status(execution_id)
    assert view.task_states["t1"] is view.task_states["t2"] is TaskState.COMPENSATED
    assert details(view)["details"]["left"] == []
    retried = await bench.until_event(execution_id, "saga.compensation_retried", task_id="t2")
    assert retried.payload["actor"] == "alice"


async def test_an_operator_may_mark_a_step_as_done_and_the_rest_is_undone_then(bench: Bench) -> None:
    execution_id = await partial(bench, fail_times=100)
    store = bench.stores.compensations
    answer, request = await store.mark_done(bench.tenant, execution_id, "t2", "bob", "refunded by phone")
    assert (answer.state, answer.compensation_status) == ("marked_done", "partial")
    assert request is not None
    await bench.launcher.retry_compensations(request)
    await bench.until_event(execution_id, "saga.compensation_completed", task_id="t1")
    marked = await bench.until_event(execution_id, "saga.compensation_completed", task_id="t2")
    assert (marked.payload["actor"], marked.payload["reason"]) == ("bob", "refunded by phone")


async def test_a_retry_that_fails_again_leaves_the_step_to_the_next_request(bench: Bench) -> None:
    execution_id = await partial(bench, fail_times=100)
    store = bench.stores.compensations
    await bench.launcher.retry_compensations(await store.begin_retry(bench.tenant, execution_id, "t2", "alice"))

    async def failed_again() -> bool:
        page = await store.list(bench.tenant, execution_id, limit=10, page_token=None)
        return (page.items[0].state, page.items[0].attempts) == ("failed", 4)

    await bench.until(failed_again, "tried twice more")


async def test_a_retry_whose_run_was_ended_from_outside_can_be_asked_for_again(bench: Bench) -> None:
    slow = {"compensation": {"fail_times": 2, "duration_ms": 700}}
    tasks = (step("t1", input=slow), step("t2", "t1", input={"fail": "no"}))
    execution_id = await bench.start(saga(*tasks))
    await bench.until_closed(execution_id)
    store = bench.stores.compensations
    request = await store.begin_retry(bench.tenant, execution_id, "t1", "alice")
    await bench.launcher.retry_compensations(request)
    run = bench.client.get_workflow_handle(f"{bench.tenant}/{execution_id}/compensation/{request.request_id}")
    await run.terminate("by hand")
    assert await store.begin_retry(bench.tenant, execution_id, "t1", "bob") == request
    await bench.launcher.retry_compensations(request)
    await bench.launcher.retry_compensations(request)
    await bench.until_event(execution_id, "saga.compensation_completed", task_id="t1")
    assert await run.result() == 1


async def test_events_after_the_end_go_on_counting(bench: Bench) -> None:
    execution_id = await partial(bench)
    await bench.stores.compensations.mark_done(bench.tenant, execution_id, "t2", "bob", None)
    sequences = [event.sequence for event in await bench.events(execution_id)]
    assert sequences == list(range(1, len(sequences) + 1))


async def test_a_paused_execution_that_is_undone_goes_on_when_it_is_resumed(bench: Bench) -> None:
    slow = {"compensation": {"duration_ms": 800}}
    tasks = (step("t1"), step("t2", "t1", input=slow), step("t3", "t2", input={"fail": "no"}))
    execution_id = await bench.start(saga(*tasks))
    await bench.until_event(execution_id, "saga.compensation_started")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.until_event(execution_id, "saga.compensation_completed", task_id="t2")
    assert await compensated(bench, execution_id) == ["t2"]
    await bench.ask(execution_id, "resume")
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.FAILED
    assert await compensated(bench, execution_id) == ["t2", "t1"]


async def test_many_sagas_undo_beside_each_other(bench: Bench) -> None:
    document = saga(*THREE)
    ids = await asyncio.gather(*(bench.start({**document, "name": f"many-{n}"}) for n in range(10)))
    for execution_id in ids:
        await bench.until_closed(execution_id)
        assert await compensated(bench, execution_id) == ["t2", "t1"]


async def test_elements_of_lists_and_added_tasks_are_undone_like_others(bench: Bench) -> None:
    added = {"id": "added", "agent": "worker", "depends_on": ["list"], "compensation_action": "undo", "blocks": ["end"]}
    tasks = (
        step("list", input={"result": {"items": [1, 2]}, "spawn": [added]}),
        step("each", "list", for_each="results.list.items"),
        {"id": "end", "depends_on": ["each"], "input": {"fail": "no"}, "retry_policy": ONCE},
    )
    execution_id = await bench.start(saga(*tasks))
    done = await bench.until_closed(execution_id)
    assert details(done)["compensation_status"] == "completed", done.error_details
    undone = await compensated(bench, execution_id)
    assert sorted(undone) == ["added", "each[0]", "each[1]", "list"]
    assert undone[-1] == "list"
