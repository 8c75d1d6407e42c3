"""The operations over JSON-RPC, by what a client sees."""

import asyncio
import zlib
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from engine.contracts.execution import ExecutionStatus, TaskState
from engine.contracts.pressure import Pressure
from engine.errors import EngineError, InvalidParametersError
from gateway.operations import planning
from gateway.operations.definitions import content_hash
from gateway.operations.executions import EXECUTION_NAMESPACE
from gateway.operations.planning import THREAD_ABOVE_TASKS
from gateway.planning import GraphPlanning
from planner.planner import Planner
from tests.unit.gateway.conftest import Client, ClientOf, Gateway, definition

UNKNOWN = str(uuid4())


def chain(length: int) -> list[dict[str, Any]]:
    return [
        {"id": f"t{number}", "agent": "worker", "depends_on": [f"t{number - 1}"] if number else []}
        for number in range(length)
    ]


async def test_a_definition_is_validated_planned_and_stored(client: Client, gateway: Gateway) -> None:
    created = await client.result("workflow.create", definition())
    assert created["status"] == "validated"
    assert created["validation_report"]["errors"] == []
    assert all(isinstance(text, str) for text in created["validation_report"]["warnings"])
    assert created["estimated_resources"]["agents_required"] == 2
    assert ("default", UUID(created["workflow_id"])) in gateway.definitions.rows


async def test_parameters_may_be_positional(client: Client) -> None:
    given = definition(description="d", pattern_config={})
    names = ("name", "version", "description", "orchestration_pattern", "pattern_config", "agents", "tasks")
    created = await client.result("workflow.create", [*(given[name] for name in names), given["coordination"]])
    assert (await client.result("workflow.get", [created["workflow_id"]]))["name"] == "diamond"


async def test_the_same_content_is_the_same_workflow_and_other_content_needs_a_version(client: Client) -> None:
    first = await client.result("workflow.create", definition())
    assert await client.result("workflow.create", definition()) == first
    error = await client.error("workflow.create", definition(tasks=chain(2)))
    assert error["code"] == -32602
    assert await client.result("workflow.create", definition(tasks=chain(2), version="2.0.0")) != first


async def test_every_problem_of_a_definition_is_reported_at_once_and_located(client: Client, gateway: Gateway) -> None:
    tasks = [
        {"id": "a", "agent": "nobody"},
        {"id": "b", "agent": "worker", "depends_on": ["b", "ghost"]},
        {"id": "b", "agent": "worker", "timeout_seconds": False},
    ]
    error = await client.error("workflow.create", definition(name="not a name", tasks=tasks))
    assert error["code"] == -32602
    assert error["data"]["code"] == "INVALID_DEFINITION"
    locations = {item["location"] for item in error["data"]["errors"]}
    assert {"name", "tasks[0].agent", "tasks[1].depends_on[1]", "tasks[2].timeout_seconds"} <= locations
    assert not gateway.definitions.rows


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"orchestration_pattern": "quantum"}, -32000),
        ({"orchestration_pattern": 7}, -32602),
        ({"agents": {"worker": {"type": "unheard-of"}}}, -32001),
        ({"agents": {"worker": {"type": "synthetic", "resources": {"cpu": "100000 cores"}}}}, -32002),
        ({"agents": {"worker": {"type": "synthetic", "resources": {"memory": "900TB"}}}}, -32002),
        ({"agents": {"worker": {"type": "synthetic", "resources": {"memory": "lots"}}}}, -32602),
        ({"pattern_config": {"strategy": "random"}}, -32602),
        ({"pattern_config": {"unheard_of": 1}}, -32602),
        ({"unheard_of": 1}, -32602),
        ({"tasks": []}, -32602),
        ({"idempotency_key": ""}, -32602),
    ],
)
async def test_what_cannot_run_here_has_its_own_error_and_stores_nothing(
    client: Client, gateway: Gateway, changes: dict[str, Any], code: int
) -> None:
    assert (await client.error("workflow.create", definition(**changes)))["code"] == code
    assert not gateway.definitions.rows


async def test_a_large_definition_is_planned_off_the_event_loop(client: Client) -> None:
    tasks = chain(THREAD_ABOVE_TASKS + 1)
    created = await client.result("workflow.create", definition(tasks=tasks))
    started = await client.result("workflow.execute", {"workflow_id": created["workflow_id"], "input_data": {}})
    assert started["status"] == "planning"


async def test_an_idempotency_key_makes_create_safe_to_repeat_and_stands_for_one_body(client: Client) -> None:
    keyed = definition(idempotency_key="k1")
    first = await client.result("workflow.create", keyed)
    assert await client.result("workflow.create", keyed) == first
    error = await client.error("workflow.create", keyed | {"name": "other"})
    assert (error["code"], error["data"]["code"]) == (-32018, "IDEMPOTENCY_KEY_REUSED")


async def test_a_definition_is_got_listed_and_deleted(client: Client) -> None:
    workflow_id = (await client.result("workflow.create", definition()))["workflow_id"]
    assert (await client.result("workflow.get", {"workflow_id": workflow_id}))["task_count"] == 4
    listed = await client.result("workflow.list", {"name": "diamond", "pattern": "supervisor"})
    assert [item["workflow_id"] for item in listed["items"]] == [workflow_id]
    assert (await client.result("workflow.delete", [workflow_id]))["status"] == "deleted"
    assert (await client.error("workflow.get", [workflow_id]))["code"] == -32003


async def test_execute_stores_the_row_launches_and_answers(client: Client, gateway: Gateway) -> None:
    workflow_id = (await client.result("workflow.create", definition()))["workflow_id"]
    options = {"timeout": 60, "checkpoint_interval": 5, "pause_grace_seconds": 1, "retry_policy": "none"}
    started = await client.result(
        "workflow.execute", {"workflow_id": workflow_id, "input_data": {"x": 1}, "execution_options": options}
    )
    assert [agent["agent_id"] for agent in started["allocated_agents"]] == ["worker-1", "worker-2"]
    assert started["execution_url"] == f"ws://gateway.test/ws/workflows/{started['execution_id']}"
    assert datetime.fromisoformat(started["estimated_completion"]).tzinfo is not None
    (launch,) = gateway.launcher.launched
    assert launch.execution_id == started["execution_id"]
    assert launch.partition == zlib.crc32(started["execution_id"].encode()) % 8
    assert (launch.timeout_ms, launch.checkpoint_interval_ms, launch.pause_grace_ms) == (60_000, 5_000, 1_000)
    assert {task.retry.max_attempts for task in launch.plan.tasks} == {1}


async def test_an_acknowledged_execution_is_stored_even_when_temporal_is_away(client: Client, gateway: Gateway) -> None:
    workflow_id = (await client.result("workflow.create", definition()))["workflow_id"]
    gateway.launcher.available = False
    started = await client.result("workflow.execute", {"workflow_id": workflow_id, "input_data": {}})
    assert started["status"] == "planning"
    status = await client.result("workflow.status", [started["execution_id"]])
    assert status["status"] == "planning"


async def test_one_execution_of_a_workflow_at_a_time_unless_asked_otherwise(client: Client) -> None:
    workflow_id = (await client.result("workflow.create", definition()))["workflow_id"]
    first = await client.result("workflow.execute", {"workflow_id": workflow_id, "input_data": {}})
    error = await client.error("workflow.execute", {"workflow_id": workflow_id, "input_data": {}})
    assert error["code"] == -32004
    assert error["data"]["execution_id"] == first["execution_id"]
    second = await client.result(
        "workflow.execute",
        {"workflow_id": workflow_id, "input_data": {}, "execution_options": {"allow_concurrent": True}},
    )
    assert second["execution_id"] != first["execution_id"]


async def test_the_same_key_answers_the_same_execution_and_another_body_is_refused(
    client: Client, client_of: ClientOf, gateway: Gateway
) -> None:
    workflow_id = (await client.result("workflow.create", definition()))["workflow_id"]
    params = {"workflow_id": workflow_id, "input_data": {"x": 1}}
    header = {"Idempotency-Key": "order-7"}
    first = await client.result("workflow.execute", params, **header)
    again = await client.result("workflow.execute", params | {"idempotency_key": "order-7"})
    assert again["execution_id"] == first["execution_id"]
    assert len(gateway.executions.rows) == 1
    error = await client.error("workflow.execute", params | {"input_data": {"x": 2}}, **header)
    assert error["code"] == -32018
    other = client_of(tenant="other")
    theirs = (await other.result("workflow.create", definition()))["workflow_id"]
    started = await other.result("workflow.execute", {"workflow_id": theirs, "input_data": {}}, **header)
    assert started["execution_id"] != first["execution_id"]
    assert UUID(first["execution_id"]).version == 5
    assert UUID("6f0c5a52-0f6e-5d6b-9a27-3b1f3c6a4d10") == EXECUTION_NAMESPACE


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"resource_constraints": {"max_cpu": "1 core"}}, -32005),
        ({"resource_constraints": {"max_memory": "1GB"}}, -32005),
        ({"resource_constraints": {"max_memory": "lots"}}, -32602),
        ({"timeout": 0}, -32602),
        ({"timeout": "60"}, -32602),
        ({"retry_policy": "sometimes"}, -32602),
        ({"unheard_of": 1}, -32602),
    ],
)
async def test_options_that_cannot_be_met_start_nothing(
    client: Client, gateway: Gateway, options: dict[str, Any], code: int
) -> None:
    agents = {"worker": {"type": "synthetic", "count": 2, "resources": {"cpu": "2", "memory": "2GB"}}}
    workflow_id = (await client.result("workflow.create", definition(agents=agents)))["workflow_id"]
    params = {"workflow_id": workflow_id, "input_data": {}, "execution_options": options}
    assert (await client.error("workflow.execute", params))["code"] == code
    assert not gateway.executions.rows


async def test_many_logical_agents_are_shown_up_to_a_limit(client: Client) -> None:
    agents = {"worker": {"type": "synthetic", "count": 900}, "other": {"type": "synthetic", "count": 900}}
    workflow_id = (await client.result("workflow.create", definition(agents=agents)))["workflow_id"]
    started = await client.result("workflow.execute", {"workflow_id": workflow_id, "input_data": {}})
    assert len(started["allocated_agents"]) == 1000


async def test_pause_answers_when_its_checkpoint_stands_and_resume_goes_on(client: Client, gateway: Gateway) -> None:
    execution_id = await client.execution()
    row = gateway.executions.row("default", UUID(execution_id))
    row.task_states["a"] = TaskState.COMPLETED
    paused = await client.result("workflow.pause", {"execution_id": execution_id})
    assert paused["status"] == "paused"
    assert UUID(paused["checkpoint_id"]) in row.checkpoints
    assert paused["resume_url"] == f"http://gateway.test/api/v1/executions/{execution_id}/resume"
    assert (await client.error("workflow.pause", [execution_id]))["code"] == -32007
    resumed = await client.result("workflow.resume", [execution_id])
    assert (resumed["status"], resumed["recovered_tasks"]) == ("executing", 1)
    assert (await client.error("workflow.resume", [execution_id]))["code"] == -32007
    assert [name for _, _, name in gateway.launcher.signals] == ["pause", "resume"]


async def test_signals_name_their_request_so_that_a_late_one_asks_nothing_anew(
    client: Client, gateway: Gateway
) -> None:
    execution_id = await client.execution()
    await client.result("workflow.pause", {"execution_id": execution_id, "idempotency_key": "lunch"})
    await client.result("workflow.resume", {"execution_id": execution_id, "idempotency_key": "work"})
    assert gateway.launcher.arguments == [("lunch",), ("work",)]


async def test_resume_from_an_earlier_checkpoint_lists_what_will_run_again(client: Client, gateway: Gateway) -> None:
    execution_id = await client.execution()
    row = gateway.executions.row("default", UUID(execution_id))
    row.task_states["a"] = TaskState.COMPLETED
    early = row.add_checkpoint(uuid4(), "interval")
    row.task_states["b"] = TaskState.COMPLETED
    await client.result("workflow.pause", [execution_id])
    resumed = await client.result("workflow.resume", [execution_id, str(early.checkpoint_id)])
    assert (resumed["recovered_tasks"], resumed["repeated_side_effects"]) == (1, ["b"])
    assert row.controls[-1].checkpoint_id == str(early.checkpoint_id)


async def test_resume_from_the_latest_checkpoint_repeats_nothing(client: Client, gateway: Gateway) -> None:
    execution_id = await client.execution()
    paused = await client.result("workflow.pause", [execution_id])
    resumed = await client.result("workflow.resume", [execution_id, paused["checkpoint_id"]])
    assert resumed["repeated_side_effects"] == []
    assert gateway.executions.row("default", UUID(execution_id)).controls[-1].checkpoint_id is None


async def test_an_unknown_checkpoint_is_an_error_of_its_own(client: Client) -> None:
    execution_id = await client.execution()
    await client.result("workflow.pause", [execution_id])
    assert (await client.error("workflow.resume", [execution_id, UNKNOWN]))["code"] == -32008


async def test_pausing_twice_with_one_key_is_one_pause_even_after_a_resume(client: Client) -> None:
    execution_id = await client.execution()
    first = await client.result("workflow.pause", [execution_id], **{"Idempotency-Key": "p1"})
    assert await client.result("workflow.pause", [execution_id], **{"Idempotency-Key": "p1"}) == first
    await client.result("workflow.resume", [execution_id])
    assert await client.result("workflow.pause", [execution_id], **{"Idempotency-Key": "p1"}) == first


async def test_cancel_answers_when_the_execution_is_cancelled(client: Client) -> None:
    execution_id = await client.execution()
    assert (await client.result("workflow.cancel", [execution_id]))["status"] == "cancelled"
    for method in ("workflow.cancel", "workflow.pause", "workflow.resume"):
        assert (await client.error(method, [execution_id]))["code"] == -32007


async def test_a_signal_that_is_not_delivered_does_not_matter_while_a_tick_obeys(
    client: Client, gateway: Gateway
) -> None:
    execution_id = await client.execution()
    row = gateway.executions.row("default", UUID(execution_id))
    gateway.launcher.available = gateway.feed.available = False
    pausing = asyncio.create_task(client.result("workflow.pause", [execution_id]))
    await asyncio.wait_for(row.controlled.wait(), 5)
    row.obey()
    assert (await pausing)["status"] == "paused"


async def test_an_execution_that_does_not_obey_in_time_is_unavailable_and_the_request_stands(
    client: Client, gateway: Gateway
) -> None:
    execution_id = await client.execution()
    gateway.launcher.obeys = False
    error = await client.error("workflow.pause", [execution_id])
    assert (error["code"], error["data"]["code"]) == (-32603, "UNAVAILABLE")
    assert gateway.executions.row("default", UUID(execution_id)).pending is not None


@pytest.mark.parametrize("method", ["workflow.pause", "workflow.cancel"])
async def test_an_execution_that_ends_meanwhile_cannot_be_steered(
    client: Client, gateway: Gateway, method: str
) -> None:
    execution_id = await client.execution()
    gateway.launcher.obeys = False
    row = gateway.executions.row("default", UUID(execution_id))
    asked = asyncio.create_task(client.error(method, [execution_id]))
    await asyncio.wait_for(row.controlled.wait(), 5)
    row.change(ExecutionStatus.COMPLETED)
    assert (await asked)["code"] == -32007


@pytest.mark.parametrize("method", ["workflow.status", "workflow.pause", "workflow.resume", "workflow.cancel"])
async def test_an_unknown_execution_is_not_found(client: Client, method: str) -> None:
    assert (await client.error(method, [UNKNOWN]))["code"] == -32003


async def test_executions_are_listed_by_status_and_workflow_in_pages(client: Client) -> None:
    ids = [await client.execution(name=f"w{number}") for number in range(3)]
    first = await client.result("execution.list", {"limit": 2, "status": "executing"})
    assert len(first["items"]) == 2
    second = await client.result("execution.list", {"limit": 2, "page_token": first["next_page_token"]})
    assert [item["execution_id"] for item in first["items"] + second["items"]] == ids
    assert second["next_page_token"] is None
    workflow = first["items"][0]["workflow_id"]
    assert len((await client.result("execution.list", {"workflow_id": workflow}))["items"]) == 1


async def test_patterns_are_listed_by_kind(client: Client) -> None:
    patterns = (await client.result("pattern.list"))["patterns"]
    assert len(patterns) == 7
    assert {"supervisor", "custom"} <= {item["name"] for item in patterns if item["supported"]}
    assert (await client.result("pattern.list", {"filter": "custom"}))["patterns"] == []
    assert (await client.error("pattern.list", {"filter": "odd"}))["code"] == -32602


async def test_too_many_positional_parameters_are_invalid(client: Client) -> None:
    assert (await client.error("workflow.get", [UNKNOWN, 1]))["code"] == -32602


async def test_an_internal_error_shows_nothing_but_the_request_id(client: Client, gateway: Gateway) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    gateway.executions.status = broken  # type: ignore[method-assign]  # a store with a bug
    error = await client.error("workflow.status", [UNKNOWN])
    assert error["code"] == -32603
    assert set(error["data"]) == {"request_id"}
    assert "secret" not in str(error)
    assert gateway.outcomes()[-1] == ("workflow.status", "INTERNAL")


async def test_an_engine_error_that_clients_have_no_part_in_is_internal(client: Client, gateway: Gateway) -> None:
    async def misconfigured(*_: Any, **__: Any) -> Any:
        raise EngineError("secret detail")

    gateway.executions.status = misconfigured  # type: ignore[method-assign]  # a store with a bug
    error = await client.error("workflow.status", [UNKNOWN])
    assert error["code"] == -32603
    assert "secret" not in str(error)


async def test_operations_are_recorded_with_who_where_what_and_outcome(client: Client, gateway: Gateway) -> None:
    execution_id = await client.execution()
    await client.error("workflow.status", [UNKNOWN])
    await client.error("workflow.get", ["not-an-id\x07"])
    records = [record for _, record in gateway.log.records]
    assert [(record.operation, record.outcome) for record in records] == [
        ("workflow.create", "ok"),
        ("workflow.execute", "ok"),
        ("workflow.status", "NOT_FOUND"),
        ("workflow.get", "INVALID_PARAMETERS"),
    ]
    assert records[1].subject_id == execution_id
    assert {(record.actor, record.roles, record.address) for record in records} == {("local", ("admin",), "192.0.2.7")}
    assert records[3].subject_id is not None
    assert records[3].subject_id.isprintable()


async def test_an_audit_log_that_is_away_does_not_undo_what_was_done(client: Client, gateway: Gateway) -> None:
    gateway.log.available = False
    assert (await client.result("workflow.create", definition()))["status"] == "validated"


async def test_an_abandoned_request_is_recorded_too(client: Client, gateway: Gateway) -> None:
    execution_id = await client.execution()
    gateway.launcher.obeys = False
    pausing = asyncio.create_task(client.rpc("workflow.pause", [execution_id]))
    row = gateway.executions.row("default", UUID(execution_id))
    await asyncio.wait_for(row.controlled.wait(), 5)
    pausing.cancel()
    await asyncio.wait({pausing})
    assert gateway.outcomes()[-1] == ("workflow.pause", "ABANDONED")


async def test_a_signal_that_never_returns_does_not_hold_up_the_answer(client: Client, gateway: Gateway) -> None:
    execution_id = await client.execution()
    row = gateway.executions.row("default", UUID(execution_id))

    async def hangs(*_: Any) -> None:
        await asyncio.Event().wait()

    gateway.launcher.signal = hangs  # type: ignore[assignment]  # a Temporal that does not answer
    pausing = asyncio.create_task(client.result("workflow.pause", [execution_id]))
    await asyncio.wait_for(row.controlled.wait(), 5)
    row.obey()
    assert (await pausing)["status"] == "paused"


async def test_two_creates_of_large_definitions_at_once_both_succeed(client: Client) -> None:
    tasks = chain(THREAD_ABOVE_TASKS + 1)
    both = await asyncio.gather(
        client.result("workflow.create", definition(tasks=tasks)),
        client.result("workflow.create", definition(tasks=tasks, name="other")),
    )
    assert both[0]["workflow_id"] != both[1]["workflow_id"]


@pytest.mark.parametrize("limit", ["RUNNABLE_CACHED_MAX", "RUNNABLE_TASKS_MAX"])
async def test_runnable_plans_are_kept_up_to_a_limit(
    client: Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    tasks = len(definition()["tasks"])
    monkeypatch.setattr(planning, limit, 1 if limit == "RUNNABLE_CACHED_MAX" else 2 * tasks - 1)
    desk = planning.PlanningDesk(GraphPlanning(Planner()), gateway.definitions)
    ids = []
    for name in ("one", "two"):
        ids.append(UUID((await client.result("workflow.create", definition(name=name)))["workflow_id"]))
    first = await desk.runnable("default", ids[0], "none")
    assert await desk.runnable("default", ids[0], "none") is first
    await desk.runnable("default", ids[1], "none")
    assert await desk.runnable("default", ids[0], "none") is not first


def test_what_json_cannot_hold_has_no_content_hash() -> None:
    with pytest.raises(InvalidParametersError):
        content_hash({"x": {1, 2}})


async def test_an_external_event_is_signalled_with_its_payload(client: Client, gateway: Gateway) -> None:
    execution_id = await client.execution()
    sent = await client.result(
        "execution.send_event",
        {"execution_id": execution_id, "event_type": "approval", "payload": {"ok": True}, "event_id": "e1"},
    )
    assert sent == {"event_id": "e1"}
    assert gateway.launcher.signals[-1][2] == "external_event"
    (event,) = gateway.launcher.arguments[-1]
    assert (event.event_id, event.type, event.payload) == ("e1", "approval", {"ok": True})
    assert gateway.outcomes()[-1] == ("execution.send_event", "ok")
    answer = await client.http.post(f"/api/v1/executions/{execution_id}/events", json={"event_type": "approval"})
    assert answer.status_code == 202
    assert UUID(answer.json()["event_id"])


async def test_an_external_event_that_is_too_large_or_too_late_is_refused(client: Client, gateway: Gateway) -> None:
    execution_id = await client.execution()
    event = {"execution_id": execution_id, "event_type": "approval"}
    error = await client.error("execution.send_event", {**event, "payload": "x" * 70_000})
    assert error["code"] == -32019
    assert (await client.error("execution.send_event", {**event, "event_type": "no name"}))["code"] == -32602
    gateway.launcher.available = False
    assert (await client.error("execution.send_event", event))["data"]["code"] == "UNAVAILABLE"
    gateway.launcher.available = True
    await client.result("workflow.cancel", [execution_id])
    assert (await client.error("execution.send_event", event))["code"] == -32007


async def test_while_the_streams_are_almost_full_nothing_new_is_taken(client: Client, gateway: Gateway) -> None:
    workflow = await client.result("workflow.create", definition())
    gateway.pressure.now = Pressure.STOP
    path = f"/api/v1/workflows/{workflow['workflow_id']}/execute"
    answer = await client.http.post(path, json={"input_data": {}})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    assert gateway.outcomes()[-1] == ("workflow.execute", "TOO_MANY_REQUESTS")
    gateway.pressure.now = Pressure.SLOW
    started = (await client.http.post(path, json={"input_data": {}})).json()
    gateway.pressure.now = Pressure.STOP
    event = {"execution_id": started["execution_id"], "event_type": "approval"}
    assert (await client.error("execution.send_event", event))["code"] == -32020
    assert (await client.result("workflow.cancel", {"execution_id": started["execution_id"]}))["status"] == "cancelled"
