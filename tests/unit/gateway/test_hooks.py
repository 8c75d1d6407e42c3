"""Hooks over JSON-RPC and REST: what may be said of them, what is refused, and what the log of operations keeps."""

from typing import Any
from uuid import uuid4

import pytest

from engine.contracts.hooks import HookExecutionStatus, HookRun, HookTrigger
from engine.errors import InvalidParametersError
from gateway.operations.hooks import parse_hook
from tests.unit.gateway.conftest import Client, ClientOf, Gateway, definition, settings_of


def hook(**changes: Any) -> dict[str, Any]:
    return {
        "name": "formats",
        "trigger": "post_task",
        "action": {"type": "command", "command": "ruff format {file}"},
        **changes,
    }


async def test_a_hook_is_registered_and_answered_with_its_defaults(client: Client, gateway: Gateway) -> None:
    made = await client.result("hooks.register", hook(event_pattern="task=.*code"))
    assert made["status"] == "registered"
    assert (made["name"], made["trigger"]) == ("formats", "post_task")
    found = await client.result("hooks.get", {"hook_id": made["hook_id"]})
    assert (found["priority"], found["enabled"], found["timeout_seconds"]) == (100, True, 30)
    assert (found["mode"], found["retry_policy"], found["event_pattern"]) == ("asynchronous", None, "task=.*code")
    assert found["execution_stats"]["total_executions"] == 0
    assert found["circuit"]["state"] == "closed"
    assert gateway.hook_queue.changes == ["default"]
    [(_, record), _] = gateway.log.records
    assert (record.operation, record.subject_id) == ("hooks.register", made["hook_id"])
    assert record.details["action"]["command"] == "ruff format {file}"


async def test_names_are_texts_and_null_is_absent(client: Client) -> None:
    given = hook(name="Format the code: été", description=None, mode=None, retry_policy=None, event_pattern=None)
    made = await client.result("hooks.register", given)
    found = await client.result("hooks.get", {"hook_id": made["hook_id"]})
    assert (found["name"], found["description"], found["mode"]) == ("Format the code: été", "", "asynchronous")


async def test_what_guards_is_blocking_without_saying_so(client: Client) -> None:
    for trigger in ("pre_task", "pre_workflow"):
        made = await client.result("hooks.register", hook(name=trigger, trigger=trigger))
        found = await client.result("hooks.get", {"hook_id": made["hook_id"]})
        assert found["mode"] == "blocking"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"trigger": "post_tea"}, -32012),
        ({"trigger": 7}, -32012),
        ({"action": {"type": "command"}}, None),
        ({"action": {"type": "magic"}}, -32013),
        ({"action": {"type": "command", "command": "ruff", "shell": True}}, -32013),
        ({"action": "ruff"}, -32013),
        ({"action": {"type": "function", "function": "forbidden"}}, -32013),
        ({"event_pattern": "(?=x)"}, -32602),
        ({"event_pattern": "x" * 501}, -32602),
        ({"name": ""}, -32602),
        ({"name": "x" * 256}, -32602),
        ({"name": "a\nb"}, -32602),
        ({"timeout_seconds": 0}, -32602),
        ({"timeout_seconds": "30"}, -32602),
        ({"priority": 1.5}, -32602),
        ({"retry_policy": {"max_attempts": 99}}, -32602),
        ({"mode": "blocking"}, -32602),
        ({"trigger": "pre_task", "mode": "asynchronous"}, -32602),
        ({"unknown": 1}, -32602),
    ],
)
async def test_what_is_wrong_with_a_hook_has_its_code(
    client: Client, gateway: Gateway, changes: dict[str, Any], code: int | None
) -> None:
    gateway.hook_actions.refuses = {"forbidden", ""}
    error = await client.error("hooks.register", hook(**changes))
    assert error["code"] == (-32013 if code is None else code)
    assert gateway.hooks.hooks == {}


@pytest.mark.parametrize("wrong", ["\ud800", "a\x00b"])
def test_a_name_is_text_that_can_be_stored(wrong: str) -> None:
    with pytest.raises(InvalidParametersError):
        parse_hook(hook(name=wrong))


@pytest.mark.parametrize("missing", ["name", "trigger", "action"])
async def test_what_a_hook_must_have_is_said(client: Client, missing: str) -> None:
    given = hook()
    del given[missing]
    error = await client.error("hooks.register", given)
    assert error["code"] == (-32013 if missing == "action" else -32602)


async def test_a_name_is_taken_once_a_tenant(client_of: ClientOf) -> None:
    await client_of().result("hooks.register", hook())
    assert (await client_of().error("hooks.register", hook()))["code"] == -32011
    await client_of(tenant="another").result("hooks.register", hook())


async def test_listings_filter_by_trigger_and_state_over_both_transports(client: Client) -> None:
    for name, trigger, enabled in (("a", "post_task", True), ("b", "post_task", False), ("c", "agent_failed", True)):
        await client.result("hooks.register", hook(name=name, trigger=trigger, enabled=enabled))
    found = await client.result("hooks.list", {"trigger": "post_task", "enabled": False})
    assert [item["name"] for item in found["hooks"]] == ["b"]
    page = (await client.http.get("/api/v1/hooks?enabled=true&limit=1")).json()
    assert [item["name"] for item in page["items"]] == ["a"]
    rest = (await client.http.get(f"/api/v1/hooks?enabled=true&page_token={page['next_page_token']}")).json()
    assert [item["name"] for item in rest["items"]] == ["c"]
    assert (await client.http.get("/api/v1/hooks?enabled=perhaps")).status_code == 400


async def test_an_update_changes_what_it_names_and_is_checked_as_a_whole(client: Client, gateway: Gateway) -> None:
    made = await client.result("hooks.register", hook(event_pattern="x", retry_policy={"max_attempts": 1}))
    path = f"/api/v1/hooks/{made['hook_id']}"
    changed = (await client.http.patch(path, json={"priority": 3, "event_pattern": None})).json()
    assert (changed["priority"], changed["event_pattern"], changed["name"]) == (3, None, "formats")
    assert changed["retry_policy"]["max_attempts"] == 1
    guard = await client.result("hooks.update", {"hook_id": made["hook_id"], "trigger": "pre_task"})
    assert guard["mode"] == "blocking"
    back = await client.result("hooks.update", {"hook_id": made["hook_id"], "trigger": "post_task"})
    assert back["mode"] == "asynchronous"
    for wrong in ({"mode": "blocking"}, {"event_pattern": "("}, {"hooks": 1}, {}):
        assert (await client.http.patch(path, json=wrong)).status_code == 400
    gateway.hook_actions.refuses = {"git push"}
    refused = await client.http.patch(path, json={"action": {"type": "command", "command": "git push"}})
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_HOOK_ACTION")
    [details] = [record.details for _, record in gateway.log.records if "git push" in str(record.details)]
    assert details["action"]["command"] == "git push"


@pytest.mark.parametrize(
    "changes",
    [
        {"action": {"type": "command", "command": "curl", "secrets": {"TOKEN": "hunter2!"}}},
        {"action": "hunter2!"},
        {"name": "hunter2!\n"},
        {"enabled": "hunter2!"},
        {"trigger": "hunter2!"},
        {"event_pattern": "hunter2!" * 100},
    ],
)
async def test_values_that_are_not_valid_reach_no_log_of_operations(
    client: Client, gateway: Gateway, changes: dict[str, Any]
) -> None:
    made = await client.result("hooks.register", hook())
    assert (await client.http.patch(f"/api/v1/hooks/{made['hook_id']}", json=changes)).status_code == 400
    _, record = gateway.log.records[-1]
    assert (record.operation, record.subject_id, record.details) == ("hooks.update", made["hook_id"], {})
    assert record.outcome != "ok"


async def test_large_values_are_only_named_in_the_log_of_operations(client: Client, gateway: Gateway) -> None:
    action = {"type": "command", "command": "ruff", "args": ["x" * 8_000] * 3}
    made = await client.result("hooks.register", hook(action=action))
    await client.result("hooks.update", {"hook_id": made["hook_id"], "action": action, "priority": 1})
    registered, updated = (record.details for _, record in gateway.log.records)
    assert registered["omitted_bytes"] > 24_000
    assert set(registered["fields"]) >= {"name", "trigger", "action"}
    assert updated["fields"] == ["action", "priority"]


async def test_hooks_are_disabled_enabled_and_deleted(client: Client, gateway: Gateway) -> None:
    made = await client.result("hooks.register", hook())
    path = f"/api/v1/hooks/{made['hook_id']}"
    assert not (await client.http.post(f"{path}/disable")).json()["enabled"]
    assert (await client.result("hooks.enable", {"hook_id": made["hook_id"]}))["enabled"]
    assert (await client.http.delete(path)).status_code == 204
    for method in ("hooks.get", "hooks.delete", "hooks.enable"):
        assert (await client.error(method, {"hook_id": made["hook_id"]}))["code"] == -32014
    assert (await client.http.get(path)).status_code == 404
    assert len(gateway.hook_queue.changes) == 4


async def test_a_hook_is_run_once_by_a_hook_worker(client: Client, gateway: Gateway) -> None:
    made = await client.result("hooks.register", hook(timeout_seconds=7))
    run_id = str(uuid4())
    gateway.hook_queue.answer = {
        "execution_id": run_id, "status": "completed", "output": "ok", "error_message": None, "duration_ms": 3,
    }  # fmt: skip
    params = {"hook_id": made["hook_id"], "context": {"task_id": "a"}}
    run = await client.result("hooks.execute", params)
    assert (run["execution_id"], run["status"], run["output"]) == (run_id, "completed", "ok")
    [(tenant, request, timeout)] = gateway.hook_queue.requests
    assert (tenant, request["hook_id"], request["context"]) == ("default", made["hook_id"], {"task_id": "a"})
    assert timeout == 12
    gateway.hook_queue.answer |= {"status": "failed", "error_message": "no"}
    assert (await client.result("hooks.execute", params))["status"] == "failed"


async def test_a_run_that_cannot_happen_says_why(client: Client, gateway: Gateway) -> None:
    made = await client.result("hooks.register", hook())
    params = {"hook_id": made["hook_id"], "context": {}}
    error = await client.error("hooks.execute", params)
    assert (error["code"], error["data"]["reason"]) == (-32015, "NO_ANSWER")
    gateway.hook_queue.answer = {"error": {"code": "HOOK_NOT_FOUND", "message": "no such hook"}}
    assert (await client.error("hooks.execute", params))["data"]["reason"] == "HOOK_NOT_FOUND"
    large = {"hook_id": made["hook_id"], "context": {"x": "y" * 70_000}}
    assert (await client.error("hooks.execute", large))["code"] == -32019
    await client.result("hooks.set_switch", {"enabled": False})
    assert (await client.error("hooks.execute", params))["data"]["reason"] == "SWITCHED_OFF"
    assert (await client.error("hooks.execute", {"hook_id": str(uuid4()), "context": {}}))["code"] == -32014


async def test_one_switch_turns_all_hooks_of_the_tenant_off(client: Client, gateway: Gateway) -> None:
    assert await client.result("hooks.switch") == {"enabled": True, "engine_enabled": True}
    answer = await client.http.post("/api/v1/hooks/switch", json={"enabled": False})
    assert answer.json() == {"enabled": False, "engine_enabled": True}
    assert (await client.http.get("/api/v1/hooks/switch")).json()["enabled"] is False
    assert gateway.hook_queue.changes == ["default"]


async def test_runs_are_listed_by_hook_execution_and_status(client: Client, gateway: Gateway) -> None:
    made = await client.result("hooks.register", hook())
    execution_id = uuid4()
    for status in HookExecutionStatus:
        run = HookRun(
            execution_id=uuid4(), hook_id=made["hook_id"], hook_name="formats", workflow_execution_id=execution_id,
            status=status, duration_ms=1, trigger=HookTrigger.POST_TASK,
        )  # fmt: skip
        gateway.hooks.runs.append(("default", run))
    found = (await client.http.get(f"/api/v1/hooks/executions?hook_id={made['hook_id']}&status=timeout")).json()
    assert [item["status"] for item in found["items"]] == ["timeout"]
    everything = await client.result("hooks.executions", {"execution_id": str(execution_id)})
    assert len(everything["items"]) == 3
    assert (await client.result("hooks.executions", {"execution_id": str(uuid4())}))["items"] == []


async def test_an_execution_knows_from_its_start_what_blocking_hooks_guard(client: Client, gateway: Gateway) -> None:
    await client.result("hooks.register", hook(name="gate", trigger="pre_task", event_pattern="task=b "))
    await client.result("hooks.register", hook(name="begin", trigger="pre_workflow", event_pattern="workflow=other"))
    execution_id = await client.execution()
    [launch] = [row.launch for row in gateway.executions.rows.values()]
    assert launch.execution_id == execution_id
    assert [task.id for task in launch.plan.tasks if task.guarded] == ["b"]
    assert launch.hooks is not None
    assert (launch.hooks.pre_workflow, launch.hooks.added_tasks) == (False, True)


async def test_large_graphs_are_matched_aside(client: Client, gateway: Gateway) -> None:
    await client.result("hooks.register", hook(name="gate", trigger="pre_task", event_pattern="task=t7 "))
    tasks = [{"id": f"t{n}", "agent": "worker"} for n in range(600)]
    await client.execution(tasks=tasks)
    [launch] = [row.launch for row in gateway.executions.rows.values()]
    assert [task.id for task in launch.plan.tasks if task.guarded] == ["t7"]


async def test_without_blocking_hooks_a_launch_is_as_ever(client: Client, gateway: Gateway) -> None:
    await client.result("hooks.register", hook())
    await client.result("workflow.create", definition())
    await client.execution(name="another")
    [launch] = [row.launch for row in gateway.executions.rows.values()]
    assert launch.hooks is None


async def test_the_operators_switch_wins() -> None:
    gateway = Gateway(settings_of(hooks_enabled=False))
    async with gateway.client() as http:
        client = Client(http)
        assert (await client.result("hooks.switch"))["engine_enabled"] is False
        await client.result("hooks.register", hook(trigger="pre_task"))
        await client.execution()
    [launch] = [row.launch for row in gateway.executions.rows.values()]
    assert launch.hooks is None
