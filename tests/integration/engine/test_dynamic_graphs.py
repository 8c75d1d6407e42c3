"""Graphs that change while they run, on the real engine in one process."""

import time
import uuid
from pathlib import Path
from typing import Any
from uuid import UUID

from engine.contracts.dynamic import ExternalEvent
from engine.contracts.execution import ExecutionStatus, TaskState
from engine.contracts.views import ExecutionView
from planner.text import parse_text
from tests.integration.engine.bench import Bench, definition, types

EXAMPLE = Path(__file__).parents[3] / "examples" / "dynamic.yaml"


async def send(bench: Bench, execution_id: UUID, kind: str, payload: Any = None, event_id: str | None = None) -> str:
    event = ExternalEvent(
        event_id=event_id or str(uuid.uuid4()), type=kind, at_ms=int(time.time() * 1000), payload=payload
    )
    await bench.launcher.signal(bench.tenant, execution_id, "external_event", event)
    return event.event_id


async def result(bench: Bench, execution_id: UUID, task_id: str) -> Any:
    return (await bench.stores.dispatch.result(bench.tenant, execution_id, task_id)).result


def error_of(view: ExecutionView) -> dict[str, Any]:
    assert view.error_details is not None
    return view.error_details


async def until_awaiting(bench: Bench, execution_id: UUID, task_id: str) -> None:
    async def awaited() -> bool:
        return task_id in (await bench.status(execution_id)).awaiting

    await bench.until(awaited, f"{task_id} awaits an event")


# for_each -----------------------------------------------------------------------------------------------------------


async def test_a_task_runs_once_for_each_element_of_an_upstream_result(bench: Bench) -> None:
    execution_id = await bench.start(
        definition(
            {"id": "list", "input": {"result": {"files": ["a", "b", "c"]}}},
            {"id": "each", "depends_on": ["list"], "for_each": "results.list.files", "input": {"result": "seen"}},
            {"id": "sum", "depends_on": ["each"], "input": {"result": "done"}},
        )
    )
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    assert list(done.task_states) == ["list", "each", "sum", "each[0]", "each[1]", "each[2]"]
    assert set(done.task_states.values()) == {TaskState.COMPLETED}
    assert await result(bench, execution_id, "each") == ["seen", "seen", "seen"]
    assert await bench.stores.dispatch.results(bench.tenant, execution_id, ["each"]) == {"each": ["seen"] * 3}
    page = await bench.stores.executions.tasks(bench.tenant, execution_id, limit=4, page_token=None)
    rest = await bench.stores.executions.tasks(bench.tenant, execution_id, limit=4, page_token=page.next_page_token)
    assert [t.task_id for t in (*page.items, *rest.items)] == list(done.task_states)
    (summary,) = (await bench.stores.executions.list(bench.tenant, limit=10, page_token=None)).items
    assert (summary.tasks_total, summary.tasks_completed) == (6, 6)
    await bench.assert_replays(execution_id)


async def test_an_agent_gets_its_element_and_dependents_get_the_list_of_results(bench: Bench) -> None:
    execution_id = await bench.start(
        definition(
            {"id": "each", "for_each": "input.names", "input": {"duration_ms": 1}},
            {"id": "again", "depends_on": ["each"], "for_each": "results.each"},
        ),
        {"names": ["x", "y"]},
    )
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    assert {"again[0]", "again[1]"} <= done.task_states.keys()
    bodies = await bench.stores.graphs.describe(bench.tenant, execution_id, ["each[1]"])
    assert (bodies["each[1]"].parent, bodies["each[1]"].element) == ("each", 1)


async def test_an_empty_list_is_done_at_once(bench: Bench) -> None:
    execution_id = await bench.start(
        definition({"id": "each", "for_each": "input.names"}, {"id": "z", "depends_on": ["each"]}), {"names": []}
    )
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    assert await result(bench, execution_id, "each") == []


async def test_what_is_no_list_fails_the_task_and_the_other_branches_finish(bench: Bench) -> None:
    execution_id = await bench.start(
        definition(
            {"id": "each", "for_each": "input.names"},
            {"id": "z", "depends_on": ["each"]},
            {"id": "other"},
            on_failure="finish_branches",
        ),
        {"names": "x"},
    )
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.FAILED
    assert done.task_states == {
        "each": TaskState.FAILED, "z": TaskState.SKIPPED, "other": TaskState.COMPLETED
    }  # fmt: skip
    tasks = await bench.stores.executions.tasks(bench.tenant, execution_id, limit=10, page_token=None)
    failed = next(task for task in tasks.items if task.task_id == "each")
    assert failed.error is not None
    assert failed.error["code"] == "FOR_EACH_NOT_A_LIST"
    assert failed.agent_id is None


async def test_a_million_elements_are_refused_with_a_clear_error(bench: Bench) -> None:
    execution_id = await bench.start(
        definition(
            {"id": "list", "input": {"result": list(range(1_000_000))}},
            {"id": "each", "depends_on": ["list"], "for_each": "results.list"},
        )
    )
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.FAILED
    assert error_of(done)["failed_task"] == "each"
    assert error_of(done)["details"]["code"] == "FOR_EACH_TOO_LONG"
    assert "1000000 elements" in error_of(done)["error_message"]
    await bench.assert_replays(execution_id)


async def test_two_thousand_elements_run_across_several_runs(bench: Bench) -> None:
    execution_id = await bench.start(
        definition({"id": "each", "for_each": "input.n"}), {"n": list(range(2_000))}, history_events_max=20
    )
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    assert done.performance_metrics.tasks_completed == 2_001
    assert types(await bench.events(execution_id)).count("task.completed") == 2_001
    await bench.assert_replays(execution_id)


# when ---------------------------------------------------------------------------------------------------------------


async def test_conditions_choose_the_branch(bench: Bench) -> None:
    execution_id = await bench.start(
        definition(
            {"id": "check", "input": {"result": {"score": 3}}},
            {"id": "good", "depends_on": ["check"], "when": "results.check.score > 5"},
            {"id": "bad", "depends_on": ["check"], "when": "results.check.score <= 5"},
            {"id": "after_good", "depends_on": ["good"]},
            {"id": "end", "depends_on": ["good", "bad"]},
        )
    )
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    assert done.task_states == {
        "check": TaskState.COMPLETED,
        "good": TaskState.SKIPPED,
        "bad": TaskState.COMPLETED,
        "after_good": TaskState.SKIPPED,
        "end": TaskState.COMPLETED,
    }
    await bench.assert_replays(execution_id)


async def test_a_condition_that_cannot_be_evaluated_fails_its_task(bench: Bench) -> None:
    execution_id = await bench.start(definition({"id": "a", "when": "input.x"}), {"x": "yes"})
    done = await bench.until_closed(execution_id)
    assert error_of(done)["details"]["code"] == "EXPRESSION_TYPE"


# triggers -----------------------------------------------------------------------------------------------------------


async def test_a_task_waits_for_an_event_that_meets_its_condition(bench: Bench) -> None:
    trigger = {"event": "approval", "when": "event.ok == true"}
    execution_id = await bench.start(
        definition({"id": "first"}, {"id": "go", "depends_on": ["first"], "triggers": [trigger]})
    )
    await send(bench, execution_id, "approval", {"ok": False})
    await until_awaiting(bench, execution_id, "go")
    await send(bench, execution_id, "approval", {"ok": True}, "the-one")
    await send(bench, execution_id, "approval", {"ok": True}, "the-one")
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    assert done.awaiting == {}
    events = await bench.events(execution_id)
    assert [e.payload["event_id"] for e in events if e.event_type == "task.triggered"] == ["the-one"]
    assert types(events).count("external.event_received") == 2
    additions = await bench.stores.graphs.describe(bench.tenant, execution_id, ["go"])
    assert additions["go"].event == {"ok": True}
    await bench.assert_replays(execution_id)


async def test_an_event_that_does_not_come_in_time_is_not_waited_for(bench: Bench) -> None:
    def waiting(on_timeout: str) -> dict[str, Any]:
        trigger = {"event": "never", "timeout_seconds": 1, "on_timeout": on_timeout}
        return {"id": on_timeout, "triggers": [trigger]}

    execution_id = await bench.start(definition(waiting("run"), waiting("skip"), waiting("fail")))
    done = await bench.until_closed(execution_id)
    assert error_of(done)["failed_task"] == "fail"
    assert error_of(done)["details"]["code"] == "TRIGGER_TIMEOUT"
    assert done.task_states["skip"] is TaskState.SKIPPED
    await bench.assert_replays(execution_id)


async def test_a_wait_is_carried_into_the_next_run(bench: Bench) -> None:
    tasks = [{"id": f"t{n}", "depends_on": [f"t{n - 1}"] if n else [], "input": {"duration_ms": 40}} for n in range(8)]
    execution_id = await bench.start(
        definition(*tasks, {"id": "go", "depends_on": ["t0"], "triggers": [{"event": "go"}]}, agents=1),
        history_events_max=15,
    )
    await send(bench, execution_id, "early")
    await bench.until_event(execution_id, "task.completed", task_id="t7")
    await send(bench, execution_id, "go")
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    assert await bench.assert_replays(execution_id) > 1


# spawn --------------------------------------------------------------------------------------------------------------


async def test_a_result_adds_tasks_that_others_wait_for(bench: Bench) -> None:
    added = [
        {"id": "n1", "agent": "worker", "depends_on": ["plan"], "blocks": ["end"], "input": {"result": 1}},
        {"id": "n2", "agent": "worker", "depends_on": ["n1"], "blocks": ["end"], "input": {"result": 2}},
    ]
    execution_id = await bench.start(
        definition({"id": "plan", "input": {"spawn": added}}, {"id": "end", "depends_on": ["plan"]})
    )
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    assert done.task_states == dict.fromkeys(["plan", "end", "n1", "n2"], TaskState.COMPLETED)
    events = await bench.events(execution_id)
    order = [e.payload["task_id"] for e in events if e.event_type == "task.completed"]
    assert order == ["plan", "n1", "n2", "end"]
    additions = await bench.stores.graphs.describe(bench.tenant, execution_id, ["end"])
    assert additions["end"].waits_for == ("n1", "n2")
    await bench.assert_replays(execution_id)


async def test_an_added_task_that_closes_a_cycle_is_refused_and_the_run_goes_on_as_its_policy_says(
    bench: Bench,
) -> None:
    added = [{"id": "n", "agent": "worker", "depends_on": ["end"], "blocks": ["end"]}]
    execution_id = await bench.start(
        definition(
            {"id": "plan", "input": {"spawn": added}},
            {"id": "end", "depends_on": ["plan"]},
            {"id": "other"},
            on_failure="finish_branches",
        )
    )
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.FAILED
    assert done.task_states == {
        "plan": TaskState.FAILED, "end": TaskState.SKIPPED, "other": TaskState.COMPLETED
    }  # fmt: skip
    events = await bench.events(execution_id)
    (failed,) = [e.payload for e in events if e.event_type == "task.completed" and e.payload["status"] == "failed"]
    assert failed["error"]["code"] == "SPAWN_REFUSED"
    assert "wait for each other: end, n" in failed["error"]["message"]
    await bench.assert_replays(execution_id)


# reuse --------------------------------------------------------------------------------------------------------------


async def test_an_equal_task_takes_the_result_of_the_first(bench: Bench) -> None:
    tasks: list[dict[str, Any]] = [
        {"id": "a", "reuse": True, "input": {"result": {"x": 1}}},
        {"id": "b", "reuse": True, "depends_on": ["a"], "input": {"result": "y" * 10_000}},
        {"id": "c", "depends_on": ["b"]},
    ]
    for n in range(2):
        execution_id = await bench.start(definition(*tasks))
        done = await bench.until_closed(execution_id)
        assert done.status is ExecutionStatus.COMPLETED
        assert await result(bench, execution_id, "a") == {"x": 1}
        assert await result(bench, execution_id, "b") == "y" * 10_000
        events = await bench.events(execution_id)
        reused = [e.payload["task_id"] for e in events if e.event_type == "task.completed" and e.payload.get("reused")]
        assert reused == (["a", "b"] if n else [])
        await bench.assert_replays(execution_id)


async def test_another_input_is_another_task_and_failures_are_not_reused(bench: Bench) -> None:
    def reusable(**fields: Any) -> dict[str, Any]:
        return {"id": "a", "reuse": True, "retry_policy": "none", "input": {"result": 1, **fields}}

    first = await bench.start(definition(reusable(fail="broken")))
    assert (await bench.until_closed(first)).status is ExecutionStatus.FAILED
    for n, task in enumerate([reusable(fail="broken"), reusable(), reusable(progress=0)]):
        execution_id = await bench.start(definition(task))
        await bench.until_closed(execution_id)
        assert not any(e.payload.get("reused") for e in await bench.events(execution_id)), n


# Going back ---------------------------------------------------------------------------------------------------------


async def test_resuming_from_before_an_expansion_expands_again(bench: Bench) -> None:
    tasks: list[dict[str, Any]] = [
        {"id": "list", "input": {"result": [1, 2], "duration_ms": 100}},
        {"id": "each", "depends_on": ["list"], "for_each": "results.list"},
        {"id": "wait", "depends_on": ["each"], "triggers": [{"event": "go"}]},
    ]
    execution_id = await bench.start(definition(*tasks, agents=1))
    first = str(uuid.uuid4())
    await bench.until_event(execution_id, "agent.task_assigned", task_id="list")
    await bench.ask(execution_id, "checkpoint", first)
    await until_awaiting(bench, execution_id, "wait")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.ask(execution_id, "resume", first)
    await bench.until_status(execution_id, ExecutionStatus.EXECUTING)
    await send(bench, execution_id, "go")
    done = await bench.until_closed(execution_id)
    assert (done.status, done.epoch) == (ExecutionStatus.COMPLETED, 2)
    assert list(done.task_states) == ["list", "each", "wait", "each[0]", "each[1]"]
    await bench.assert_replays(execution_id)


async def test_the_example_runs_as_it_says(bench: Bench) -> None:
    document = parse_text(EXAMPLE.read_text(encoding="utf-8"))
    execution_id = await bench.start({**document, "name": f"example-{uuid.uuid4().hex[:8]}"}, {"threshold": 2})
    await send(bench, execution_id, "release", {"ok": True})
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    assert done.task_states["alarm"] is TaskState.SKIPPED
    assert done.task_states["build[3]"] is TaskState.COMPLETED
    events = await bench.events(execution_id)
    order = [e.payload["task_id"] for e in events if e.event_type == "task.completed"]
    assert order.index("safety") < order.index("report") < order.index("publish")
    await bench.assert_replays(execution_id)
