"""Hooks on the real engine: asynchronous and blocking ones, their order, limits and repetitions."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from engine.concurrency import end_all, run_together
from engine.contracts.dynamic import ExternalEvent
from engine.contracts.execution import ExecutionStatus, TaskState
from engine.contracts.hooks import CircuitState, HookDetail, HookExecution, HookExecutionStatus
from engine.events.hook_queue import RedisHookQueue
from engine.settings import Settings
from hooks.actions.context import HookContext
from hooks.actions.functions import FunctionRegistry
from hooks.actions.runner import HookActions
from hooks.secrets import SecretStore
from orchestration_agent.host import AgentHost
from orchestration_agent.task import Task
from tests.fakes.hooks import new_hook
from tests.integration.engine.bench import Bench, chain, definition, types
from worker import ROLES, build

CALLS: list[tuple[str, HookContext, float]] = []
"""What hooks of all tests were called with; each test looks at its own tenant's."""


async def note(context: HookContext, *_args: str) -> None:
    CALLS.append((context.tenant, context, time.monotonic()))


async def sleep(context: HookContext, seconds: str) -> None:
    await note(context)
    await asyncio.sleep(float(seconds))


async def fail(context: HookContext) -> None:
    await note(context)
    raise ValueError("broken")


async def answer(context: HookContext, text: str) -> str:
    await note(context)
    return text


def _itself(function: Callable[..., Any]) -> Callable[..., Any]:
    """As an entry point is loaded."""
    return function


FUNCTIONS: dict[str, Callable[..., Any]] = {"note": note, "sleep": sleep, "fail": fail, "answer": answer}


@pytest.fixture(scope="module")
async def hook_settings(engine_settings: Settings, server_directory: Path) -> Settings:
    return engine_settings.model_copy(
        update={
            "task_queue": f"hooks-{uuid4().hex[:8]}",
            "hooks_work_dir": server_directory / "hook-work",
            "hooks_circuit_failures": 3,
            "hooks_lease_seconds": 3.0,
        }
    )


@pytest.fixture(scope="module")
async def running_worker(hook_settings: Settings) -> AsyncIterator[None]:
    """With functions of this module's."""
    functions = {name: partial(_itself, function) for name, function in FUNCTIONS.items()}
    registry = FunctionRegistry(hook_settings, SecretStore.from_settings(hook_settings), functions)
    async with AsyncExitStack() as stack:
        jobs = await build(hook_settings, ROLES, stack, HookActions(hook_settings, functions=registry))
        running = asyncio.create_task(run_together(jobs))
        yield
        await end_all([running])


@pytest.fixture
def engine_bench(bench: Bench, hook_settings: Settings) -> Bench:
    bench.launcher = type(bench.launcher)(bench.client, hook_settings)
    bench.settings = hook_settings
    return bench


async def register(bench: Bench, function: str, *args: str, **fields: Any) -> HookDetail:
    action = {"type": "function", "function": function, "args": list(args)}
    made = await bench.stores.hooks.register(bench.tenant, new_hook(action=action, **fields), "tester")
    bench.directory.forget(bench.tenant)
    await RedisHookQueue(bench.redis).changed(bench.tenant)
    return made


def calls(bench: Bench) -> list[HookContext]:
    return [context for tenant, context, _ in CALLS if tenant == bench.tenant]


async def runs_of(bench: Bench, count: int, hook: HookDetail | None = None) -> list[HookExecution]:
    """The records, oldest first, once there are so many."""

    async def there() -> list[HookExecution] | None:
        hook_id = None if hook is None else hook.hook_id
        page = await bench.stores.hooks.executions(bench.tenant, limit=1000, page_token=None, hook_id=hook_id)
        return list(reversed(page.items)) if len(page.items) >= count else None

    return await bench.until(there, f"{count} runs of hooks")


async def completed(bench: Bench, execution_id: UUID) -> None:
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details


async def test_a_post_task_hook_runs_for_the_tasks_that_its_pattern_finds_and_the_log_tells_it(
    engine_bench: Bench,
) -> None:
    bench = engine_bench
    hook = await register(bench, "note", name="analyst", event_pattern=".*task=.*analysis.*")
    execution_id = await bench.start(
        definition({"id": "data_analysis", "input": {"result": {"file": "a.py"}}}, {"id": "other"})
    )
    await completed(bench, execution_id)
    [run] = await runs_of(bench, 1, hook)
    assert (run.status, run.workflow_execution_id) == (HookExecutionStatus.COMPLETED, execution_id)
    [context] = calls(bench)
    assert (context.task_id, context.result, context.status) == ("data_analysis", {"file": "a.py"}, "success")
    executed = await bench.until_event(execution_id, "hook.executed")
    assert executed.payload["hook_name"] == "analyst"
    events = await bench.events(execution_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    [triggered] = [event for event in events if event.event_type == "hook.triggered"]
    before = events[triggered.sequence - 2]
    assert (before.event_type, before.payload["task_id"]) == ("task.completed", "data_analysis")
    assert triggered.payload["event_matched"] == "task.completed"
    stats = (await bench.stores.hooks.get(bench.tenant, hook.hook_id)).execution_stats
    assert (stats.total_executions, stats.successful_executions) == (1, 1)
    await bench.assert_replays(execution_id)


async def test_hooks_of_one_event_run_one_after_the_other_lower_numbers_first(engine_bench: Bench) -> None:
    bench = engine_bench
    for priority in (100, 50, 200):
        await register(bench, "sleep", "0.05", name=f"p{priority}", priority=priority)
    execution_id = await bench.start(definition({"id": "a"}, {"id": "b", "depends_on": ["a"]}))
    await runs_of(bench, 6)
    for task_id in ("a", "b"):
        mine = [context.hook_name for context in calls(bench) if context.task_id == task_id]
        assert mine == ["p50", "p100", "p200"]
    await completed(bench, execution_id)


async def test_a_slow_hook_holds_nothing_up(engine_bench: Bench) -> None:
    bench = engine_bench
    await register(bench, "sleep", "5", name="slow")
    began = time.monotonic()
    execution_id = await bench.start(definition(*chain(3)))
    await completed(bench, execution_id)
    assert time.monotonic() - began < 4
    assert len(await runs_of(bench, 3)) == 3


async def test_a_hook_that_takes_too_long_is_broken_off_and_recorded_as_a_timeout(engine_bench: Bench) -> None:
    bench = engine_bench
    hook = await register(bench, "sleep", "20", name="late", timeout_seconds=1)
    await bench.start(definition({"id": "a"}))
    [run] = await runs_of(bench, 1, hook)
    assert run.status is HookExecutionStatus.TIMEOUT
    assert 900 <= run.duration_ms < 4_000


async def test_a_failing_hook_is_repeated_after_its_delays_and_then_recorded_once(engine_bench: Bench) -> None:
    bench = engine_bench
    policy = {"max_attempts": 3, "initial_delay_seconds": 0.2}
    hook = await register(bench, "fail", name="failing", retry_policy=policy)
    execution_id = await bench.start(definition({"id": "a"}))
    [run] = await runs_of(bench, 1, hook)
    assert (run.status, run.attempts) == (HookExecutionStatus.FAILED, 4)
    times = [at for tenant, _, at in CALLS if tenant == bench.tenant]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [wanted <= gap < wanted + 1 for gap, wanted in zip(gaps, (0.2, 0.4, 0.8), strict=True)] == [True] * 3
    await completed(bench, execution_id)


async def test_a_broken_hook_is_switched_off_and_reported_and_the_others_go_on(engine_bench: Bench) -> None:
    bench = engine_bench
    broken = await register(bench, "fail", name="broken", priority=1)
    fine = await register(bench, "note", name="fine", priority=2)
    execution_id = await bench.start(definition(*chain(12)))
    await completed(bench, execution_id)
    await runs_of(bench, 12, fine)
    found = await bench.stores.hooks.get(bench.tenant, broken.hook_id)
    assert found.circuit.state is CircuitState.OPEN
    report = await bench.until_event(execution_id, "hook.switched_off", hook_name="broken")
    assert report.payload["consecutive_failures"] >= 3


async def test_every_assignment_and_every_failed_attempt_sets_its_hooks_off(engine_bench: Bench) -> None:
    bench = engine_bench
    await register(bench, "note", name="assigned", trigger="agent_assigned")
    await register(bench, "note", name="failed", trigger="agent_failed", event_pattern="task=a .*status=failed")
    await register(bench, "note", name="ended", trigger="post_workflow", event_pattern="status=completed")
    retry = {"max_attempts": 2, "initial_delay_seconds": 0}
    execution_id = await bench.start(definition({"id": "a", "retry_policy": retry, "input": {"fail_times": 1}}))
    await completed(bench, execution_id)
    await runs_of(bench, 4)
    names = sorted(str(context.hook_name) for context in calls(bench))
    assert names == ["assigned", "assigned", "ended", "failed"]
    [failed] = [context for context in calls(bench) if context.hook_name == "failed"]
    assert failed.attempt == 1
    assert failed.error is not None


async def test_sessions_end_and_start_with_pause_and_resume_and_with_the_events_of_their_api(
    engine_bench: Bench,
) -> None:
    bench = engine_bench
    await register(bench, "note", name="end", trigger="session_end")
    await register(bench, "note", name="start", trigger="session_start")
    slow = {"input": {"duration_ms": 300}}
    execution_id = await bench.start(definition(*chain(6, **slow)))
    await bench.until_event(execution_id, "agent.task_started")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await runs_of(bench, 1)
    await bench.ask(execution_id, "resume")
    await runs_of(bench, 2)
    event = ExternalEvent(
        event_id="s1", type="session.saved", at_ms=int(time.time() * 1000), payload={"session_id": "s-7"}
    )
    await bench.launcher.signal(bench.tenant, execution_id, "external_event", event)
    await runs_of(bench, 3)
    names = [context.hook_name for context in calls(bench)]
    assert names == ["end", "start", "end"]
    saved = calls(bench)[-1]
    assert (saved.event_type, saved.values["session_id"]) == ("session.saved", "s-7")
    await completed(bench, execution_id)


async def test_nothing_starts_before_the_blocking_hooks_and_the_task_waits_for_its_own(engine_bench: Bench) -> None:
    bench = engine_bench
    await register(bench, "sleep", "0.3", name="gate", trigger="pre_workflow")
    await register(bench, "sleep", "0.3", name="before-b", trigger="pre_task", event_pattern="task=b ")
    execution_id = await bench.start(definition({"id": "a"}, {"id": "b", "depends_on": ["a"]}))
    await completed(bench, execution_id)
    assert [context.hook_name for context in calls(bench)] == ["gate", "before-b"]
    events = await bench.events(execution_id)
    order = [
        event.payload.get("hook_name") or f"start {event.payload['task_id']}"
        for event in events
        if event.event_type in ("hook.executed", "agent.task_started")
    ]
    assert order == ["gate", "start a", "before-b", "start b"]
    assert types(events).count("hook.triggered") == 2
    await bench.assert_replays(execution_id)


async def test_a_veto_fails_the_task_and_says_who_and_why(engine_bench: Bench) -> None:
    bench = engine_bench
    veto = '{"decision": "veto", "reason": "over budget"}'
    await register(bench, "answer", veto, name="budget", trigger="pre_task", event_pattern="task=b ")
    execution_id = await bench.start(definition({"id": "a"}, {"id": "b", "depends_on": ["a"]}))
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.FAILED
    assert view.task_states == {"a": TaskState.COMPLETED, "b": TaskState.FAILED}
    assert view.error_details is not None
    assert view.error_details["details"]["code"] == "HOOK_VETO"
    assert "budget" in view.error_details["error_message"]
    vetoed = await bench.until_event(execution_id, "hook.vetoed", task_id="b")
    assert vetoed.payload["reason"] == "over budget"


async def test_blocking_hooks_change_a_tasks_input_one_after_the_other(engine_bench: Bench) -> None:
    bench = engine_bench
    first = '{"input": {"result": "changed"}}'
    await register(bench, "answer", first, name="one", trigger="pre_task", priority=1)
    await register(bench, "note", name="two", trigger="pre_task", priority=2)
    execution_id = await bench.start(definition({"id": "a", "input": {"result": "as planned"}}))
    await completed(bench, execution_id)
    result = await bench.stores.dispatch.result(bench.tenant, execution_id, "a")
    assert result.result == "changed"
    one, two = calls(bench)
    assert (one.input, two.input) == ({"result": "as planned"}, {"result": "changed"})
    await bench.assert_replays(execution_id)


async def test_a_veto_before_the_workflow_starts_nothing(engine_bench: Bench) -> None:
    bench = engine_bench
    await register(bench, "answer", '{"decision": "veto"}', name="closed", trigger="pre_workflow")
    execution_id = await bench.start(definition({"id": "a"}))
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.FAILED
    assert view.error_details is not None
    assert view.error_details["error_code"] == "HOOK_VETO"
    assert "agent.task_assigned" not in types(await bench.events(execution_id))


async def test_a_blocking_hook_after_the_workflow_decides_whether_it_is_completed(engine_bench: Bench) -> None:
    bench = engine_bench
    veto = '{"decision": "veto", "reason": "not good enough"}'
    hook = await register(bench, "answer", veto, name="judge", trigger="post_workflow", mode="blocking")
    refused = await bench.start(definition({"id": "a"}))
    view = await bench.until_closed(refused)
    assert (view.status, view.task_states["a"]) == (ExecutionStatus.FAILED, TaskState.COMPLETED)
    await bench.stores.hooks.enable(bench.tenant, hook.hook_id, enabled=False)
    bench.directory.forget()
    await register(bench, "note", name="fine", trigger="post_workflow", mode="blocking")
    accepted = await bench.start(definition({"id": "a"}))
    await completed(bench, accepted)
    await bench.assert_replays(accepted)


async def test_a_guard_that_fails_guards_unless_it_says_otherwise(engine_bench: Bench) -> None:
    bench = engine_bench
    lenient = await register(bench, "fail", name="lenient", trigger="pre_task", on_error="proceed")
    await completed(bench, await bench.start(definition({"id": "a"})))
    await bench.stores.hooks.delete(bench.tenant, lenient.hook_id)
    await register(bench, "fail", name="strict", trigger="pre_task")
    view = await bench.until_closed(await bench.start(definition({"id": "a"})))
    assert view.status is ExecutionStatus.FAILED
    assert view.error_details is not None
    assert "strict" in view.error_details["error_message"]


async def test_the_tenants_switch_turns_asynchronous_and_blocking_hooks_off(engine_bench: Bench) -> None:
    bench = engine_bench
    await register(bench, "note", name="after")
    await register(bench, "answer", '{"decision": "veto"}', name="before", trigger="pre_task")
    await bench.stores.hooks.set_switch(bench.tenant, enabled=False)
    bench.directory.forget()
    await RedisHookQueue(bench.redis).changed(bench.tenant)
    execution_id = await bench.start(definition({"id": "a"}))
    await completed(bench, execution_id)
    assert "hook.triggered" not in types(await bench.events(execution_id))
    assert calls(bench) == []


async def test_a_hook_formats_the_file_that_a_task_has_written(engine_bench: Bench, hook_settings: Settings) -> None:
    bench = engine_bench
    assert hook_settings.hooks_work_dir is not None
    work_dir = hook_settings.hooks_work_dir / bench.tenant
    work_dir.mkdir(parents=True, exist_ok=True)

    def write(task: Task) -> dict[str, str]:
        (work_dir / "made.py").write_text("x = {  'a':1 }\n")
        return {"file": "made.py"}

    await bench.stop()
    await bench.start_host(AgentHost(write, bench.host_options))
    action = {"type": "command", "command": "ruff format {file}"}
    await bench.stores.hooks.register(bench.tenant, new_hook("formats", action=action), "tester")
    await RedisHookQueue(bench.redis).changed(bench.tenant)
    execution_id = await bench.start(definition({"id": "write_code"}))
    await completed(bench, execution_id)
    [run] = await runs_of(bench, 1)
    assert run.status is HookExecutionStatus.COMPLETED, (run.output, run.error_message)
    assert (work_dir / "made.py").read_text() == 'x = {"a": 1}\n'
