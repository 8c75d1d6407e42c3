"""SIGKILL to each part of the engine in the middle of things: nothing is lost, and nothing is done twice."""

import os
import signal
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.acceptance.audit import assert_completed, attempts, of_type, recorded_at
from tests.acceptance.caller import Caller, Refused
from tests.acceptance.journal import assert_journal_and_history_agree
from tests.acceptance.running import RunningEngine, running_engine, until
from tests.acceptance.shapes import braid, held_at, lasting, tasks

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

RESUMED_WITHIN_SECONDS = 30.0
USUAL_START_SECONDS = 10.0
"""A machine that takes longer to start an engine, as it is slow or busy, may take longer to resume in proportion."""

BRAID = braid(width=3, length=6)


def begun(engine: RunningEngine, execution_id: str) -> Counter[str]:
    """How often each task was begun, as the agents themselves recorded it."""
    return Counter(line["task_id"] for line in engine.recorded(execution_id) if line["what"] == "began")


def ended(engine: RunningEngine, execution_id: str) -> Counter[str]:
    return Counter(line["task_id"] for line in engine.recorded(execution_id) if line["what"] == "ended")


def start_braid(engine: RunningEngine, caller: Caller, duration_ms: int = 150) -> str:
    """A braid of recorded tasks, of which some are done and some are running when this returns; the last is held."""
    workflow_id = caller.create(*held_at(BRAID, ("last",), **lasting(duration_ms)), agent_type="recorder")
    execution_id = caller.execute(workflow_id)
    until(lambda: sum(ended(engine, execution_id).values()) >= 4, "some tasks are done")
    return execution_id


def killed_now(engine: RunningEngine, execution_id: str) -> float:
    """When the kill was; from now on the execution may end."""
    engine.release(execution_id, "last")
    return time.time()


def assert_resumed_in_time(engine: RunningEngine, events: list[dict[str, Any]], killed_at: float) -> None:
    later = [e for e in events if recorded_at(e).timestamp() > killed_at]
    resumed_at = recorded_at(of_type(later, "task.completed")[0]).timestamp()
    allowance = max(1.0, engine.start_seconds / USUAL_START_SECONDS)
    assert resumed_at - killed_at < RESUMED_WITHIN_SECONDS * allowance


def assert_all_is_well(engine: RunningEngine, caller: Caller, execution_id: str) -> list[dict[str, Any]]:
    events = caller.events(execution_id)
    assert_completed(events, BRAID)
    assert_journal_and_history_agree(engine, caller.tenant, execution_id)
    assert engine.replays(caller.tenant, execution_id)
    return events


def test_a_killed_worker_is_replaced_and_no_task_is_begun_again(engine: RunningEngine, caller: Caller) -> None:
    execution_id = start_braid(engine, caller)
    engine.kill_role("worker")
    killed_at = killed_now(engine, execution_id)
    caller.until_completed(execution_id)
    events = assert_all_is_well(engine, caller, execution_id)
    assert_resumed_in_time(engine, events, killed_at)
    assert begun(engine, execution_id) == dict.fromkeys(BRAID, 1)


def test_tasks_of_a_killed_host_are_taken_over_and_what_was_done_stays_done(
    engine: RunningEngine, caller: Caller
) -> None:
    execution_id = start_braid(engine, caller, duration_ms=600)
    done = {e["payload"]["task_id"] for e in of_type(caller.events(execution_id), "task.completed")}
    until(lambda: begun(engine, execution_id) - ended(engine, execution_id), "tasks are being worked on")
    for pid in engine.hosts("recorder"):
        os.kill(pid, signal.SIGKILL)
    killed_at = killed_now(engine, execution_id)
    caller.until_completed(execution_id)
    events = assert_all_is_well(engine, caller, execution_id)
    assert_resumed_in_time(engine, events, killed_at)
    again = {task_id for task_id, times in begun(engine, execution_id).items() if times > 1}
    assert again, "the host was killed in mid-task"
    assert set(begun(engine, execution_id).values()) <= {1, 2}
    assert not again & done
    assert of_type(events, "agent.disconnected")
    for task_id in again:
        assert len(attempts(events, task_id)) >= 2


def test_the_hosts_keeper_is_killed_with_all_hosts_and_work_goes_on(engine: RunningEngine, caller: Caller) -> None:
    execution_id = start_braid(engine, caller, duration_ms=300)
    engine.kill_role("hosts")
    killed_at = killed_now(engine, execution_id)
    caller.until_completed(execution_id)
    events = assert_all_is_well(engine, caller, execution_id)
    assert_resumed_in_time(engine, events, killed_at)


def execute_patiently(caller: Caller, workflow_id: str, key: str) -> str:
    """As a client does whose request got no answer: the same again."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            answer = caller.rpc(
                "workflow.execute",
                workflow_id=workflow_id,
                input_data={"key": key},
                execution_options={"allow_concurrent": True},
                idempotency_key=key,
            )
        except (httpx.TransportError, ValueError):
            time.sleep(0.05)
        except Refused as refused:
            if refused.code != -32603:
                raise
            time.sleep(0.05)
        else:
            return str(answer["execution_id"])
    raise AssertionError("the gateway did not come back")


def test_requests_repeated_over_a_killed_gateway_start_each_execution_once(
    engine: RunningEngine, caller: Caller
) -> None:
    workflow_id = caller.create({"id": "only", "input": lasting(20)}, agent_type="recorder")
    before = execute_patiently(caller, workflow_id, key=f"before-{uuid.uuid4()}")
    keys = [f"key-{uuid.uuid4()}" for _ in range(24)]
    with ThreadPoolExecutor(4) as clients:
        pending = [clients.submit(execute_patiently, caller, workflow_id, key) for key in keys]
        until(lambda: sum(answer.done() for answer in pending) >= 3, "some are acknowledged")
        engine.kill_role("gateway")
        started = [answer.result() for answer in pending]
    assert [execute_patiently(caller, workflow_id, key) for key in keys] == started
    assert len({before, *started}) == 1 + len(keys)
    for execution_id in started:
        caller.until_completed(execution_id)
        assert_completed(caller.events(execution_id), {"only": []})
        assert begun(engine, execution_id) == {"only": 1}
    listed = caller.rest("GET", "/executions", params={"workflow_id": workflow_id, "limit": 1000}).json()["items"]
    assert {item["execution_id"] for item in listed} == {before, *started}
    with pytest.raises(Refused) as refused:
        caller.rpc("workflow.execute", workflow_id=workflow_id, input_data={"other": 1}, idempotency_key=keys[0])
    assert refused.value.code == -32018


@pytest.mark.parametrize("server", ["postgres", "valkey", "temporal"])
def test_a_killed_server_is_started_again_and_work_goes_on(engine: RunningEngine, caller: Caller, server: str) -> None:
    execution_id = start_braid(engine, caller, duration_ms=300)
    engine.kill_server(server)
    killed_at = killed_now(engine, execution_id)
    caller.until_completed(execution_id)
    events = assert_all_is_well(engine, caller, execution_id)
    assert_resumed_in_time(engine, events, killed_at)
    assert begun(engine, execution_id) == dict.fromkeys(BRAID, 1)


def test_the_whole_engine_is_killed_with_its_servers_and_carries_on(engine: RunningEngine) -> None:
    caller = engine.caller()
    running = start_braid(engine, caller, duration_ms=400)
    paused = start_braid(engine, caller, duration_ms=200)
    caller.rpc("workflow.pause", execution_id=paused)
    failing = caller.execute(caller.create({"id": "again", "input": {"fail_times": 2}}))
    caller.until_event(failing, "task.retry_scheduled", attempt=2)
    workflow_id = caller.create(*tasks(BRAID, input=lasting(100)), agent_type="recorder")
    acknowledged = caller.execute(workflow_id)
    engine.kill()

    killed_at = killed_now(engine, running)
    engine.release(paused, "last")
    engine.start()
    caller = engine.caller()
    for execution_id in (running, acknowledged):
        caller.until_completed(execution_id)
        events = assert_all_is_well(engine, caller, execution_id)
        assert_resumed_in_time(engine, events, killed_at)
    caller.until_completed(failing)
    assert_completed(caller.events(failing), {"again": []})
    assert caller.status(paused)["status"] == "paused"
    caller.rpc("workflow.resume", execution_id=paused)
    caller.until_completed(paused)
    assert_all_is_well(engine, caller, paused)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_whatever_is_killed_again_and_again_each_task_completes_once() -> None:
    with running_engine() as engine:
        caller = engine.caller()
        for victim in ("worker", "hosts", "gateway", "valkey", "postgres", "temporal") * 5:
            execution_id = start_braid(engine, caller, duration_ms=200)
            if victim in ("worker", "hosts", "gateway"):
                engine.kill_role(victim)
            else:
                engine.kill_server(victim)
            engine.release(execution_id, "last")
            caller.until_completed(execution_id)
            assert_all_is_well(engine, caller, execution_id)
