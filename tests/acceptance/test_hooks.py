"""Hooks on an engine of separate processes: by API and command, through killed hook workers."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.caller import Caller, Refused
from tests.acceptance.running import RunningEngine, running_engine, until

pytestmark = pytest.mark.acceptance

FUNCTIONS = """
import asyncio, os


def _note(context, what):
    with open(os.environ["HOOK_TEST_FILE"], "a") as file:
        file.write(f"{context.hook_name} {context.task_id} {what} {os.getpid()}\\n")


async def note(context):
    _note(context, "ran")


async def slow(context, seconds):
    _note(context, "began")
    await asyncio.sleep(float(seconds))
    _note(context, "ended")


def veto(context):
    return {"decision": "veto", "reason": "not today"}
"""

ENTRY_POINTS = """[orchestrator.hooks]
test-note = hook_test_functions:note
test-slow = hook_test_functions:slow
test-veto = hook_test_functions:veto
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hooks") / "written.txt"


@pytest.fixture(scope="module")
def engine(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """With functions that are installed as an operator installs them: a distribution with entry points."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "hook_test_functions.py").write_text(FUNCTIONS)
    information = folder / "hook_test-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: hook-test\nVersion: 1\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    written.touch()
    added = {
        "PYTHONPATH": str(folder),
        "HOOK_TEST_FILE": str(written),
        "ORCHESTRATOR_HOOKS_LEASE_SECONDS": "3",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in added.items():
            patch.setenv(name, value)
        with running_engine() as engine:
            yield engine


def lines(written: Path, hook_name: str) -> list[str]:
    return [line for line in written.read_text().splitlines() if line.startswith(f"{hook_name} ")]


def function(name: str, *args: str) -> dict[str, Any]:
    return {"type": "function", "function": name, "args": list(args)}


def runs(caller: Caller, hook_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = caller.rest("GET", f"/hooks/executions?hook_id={hook_id}").json()["items"]
    return items


def test_a_hook_worker_that_is_killed_in_mid_hook_costs_the_workflow_nothing_and_the_hook_runs_again(
    engine: RunningEngine, caller: Caller, written: Path
) -> None:
    hook = caller.rpc("hooks.register", name="killed", trigger="post_task", action=function("test-slow", "2"))
    execution_id = caller.execute(caller.create({"id": "a"}))
    until(lambda: lines(written, "killed"), "the hook has begun")
    engine.kill_role("hooks")
    caller.until_completed(execution_id)
    until(lambda: runs(caller, hook["hook_id"]), "the hook has run")
    what = [line.split()[2] for line in lines(written, "killed")]
    assert what == ["began", "began", "ended"]
    [run] = runs(caller, hook["hook_id"])
    assert (run["status"], run["workflow_execution_id"]) == ("completed", execution_id)
    kinds = [event["event_type"] for event in caller.events(execution_id)]
    assert kinds.count("hook.triggered") == 1
    assert kinds.count("hook.executed") == 1
    caller.rpc("hooks.delete", hook_id=hook["hook_id"])
    assert engine.replays("default", execution_id)


def test_a_hook_worker_that_is_killed_while_it_is_asked_is_replaced_and_the_task_runs_after_the_answer(
    engine: RunningEngine, caller: Caller, written: Path
) -> None:
    hook = caller.rpc("hooks.register", name="gate", trigger="pre_task", action=function("test-slow", "1"))
    execution_id = caller.execute(caller.create({"id": "a"}))
    until(lambda: lines(written, "gate"), "the hook has begun")
    engine.kill_role("hooks")
    caller.until_completed(execution_id)
    assert [line.split()[2] for line in lines(written, "gate")] == ["began", "began", "ended"]
    kinds = [event["event_type"] for event in caller.events(execution_id)]
    assert kinds.index("hook.executed") < kinds.index("agent.task_started")
    caller.rpc("hooks.delete", hook_id=hook["hook_id"])
    assert engine.replays("default", execution_id)


def test_a_file_is_formatted_by_a_hook_that_was_registered_by_command(engine: RunningEngine, caller: Caller) -> None:
    made = engine.command(
        "hooks", "register", "--name", "formats", "--trigger", "post_task", "--pattern", "task=write_code ",
        "--command", "ruff format {file}",
    )  # fmt: skip
    work_dir = engine.data_dir / "work" / "default"
    work_dir.mkdir(parents=True, exist_ok=True)
    code = work_dir / "generated.py"
    code.write_text("x = {  'a':1 }\n")
    task = {"id": "write_code", "input": {"result": {"file": "generated.py"}}}
    caller.until_completed(caller.execute(caller.create(task, {"id": "other"})))
    [run] = until(lambda: engine.command("hooks", "executions", "--hook", made["hook_id"])["items"], "it has run")
    assert run["status"] == "completed", run
    assert code.read_text() == 'x = {"a": 1}\n'
    stats = engine.command("hooks", "get", made["hook_id"])["execution_stats"]
    assert (stats["total_executions"], stats["successful_executions"]) == (1, 1)
    assert engine.command("hooks", "delete", made["hook_id"])["status"] == "deleted"


def test_session_hooks_run_around_pause_and_resume(caller: Caller, written: Path) -> None:
    ids = [
        caller.rpc("hooks.register", name=name, trigger=name, action=function("test-note"))["hook_id"]
        for name in ("session_end", "session_start")
    ]
    tasks = [{"id": f"t{n}", "depends_on": [f"t{n - 1}"] if n else [], "input": {"duration_ms": 300}} for n in range(5)]
    execution_id = caller.execute(caller.create(*tasks))
    until(lambda: "agent.task_started" in [e["event_type"] for e in caller.events(execution_id)], "it runs")
    caller.rpc("workflow.pause", execution_id=execution_id)
    until(lambda: lines(written, "session_end"), "the session has ended")
    assert lines(written, "session_start") == []
    caller.rpc("workflow.resume", execution_id=execution_id)
    until(lambda: lines(written, "session_start"), "the session has started")
    caller.until_completed(execution_id)
    for hook_id in ids:
        caller.rpc("hooks.delete", hook_id=hook_id)


def test_a_hook_is_tried_with_a_simulated_event_and_what_cannot_run_says_so(
    engine: RunningEngine, caller: Caller
) -> None:
    hook = caller.rpc("hooks.register", name="tried", trigger="post_task", action=function("test-veto"))
    run = caller.rpc("hooks.execute", hook_id=hook["hook_id"], context={"task_id": "a"})
    assert run["status"] == "completed"
    assert "not today" in run["output"]
    caller.rpc("hooks.set_switch", enabled=False)
    with pytest.raises(Refused) as refused:
        caller.rpc("hooks.execute", hook_id=hook["hook_id"], context={})
    assert refused.value.code == -32015
    caller.rpc("hooks.set_switch", enabled=True)
    caller.rpc("hooks.delete", hook_id=hook["hook_id"])


@pytest.mark.parametrize(
    ("hook", "code"),
    [
        ({"trigger": "never"}, -32012),
        ({"action": {"type": "command", "command": "ruff format x; rm -rf /"}}, -32013),
        ({"action": {"type": "command", "command": "bash -c ls"}}, -32013),
        ({"action": {"type": "function", "function": "os.system"}}, -32013),
        ({"event_pattern": "(a"}, -32602),
    ],
)
def test_hooks_that_are_not_allowed_are_refused(caller: Caller, hook: dict[str, Any], code: int) -> None:
    fine = {"name": "refused", "trigger": "post_task", "action": function("test-note")}
    with pytest.raises(Refused) as refused:
        caller.rpc("hooks.register", **(fine | hook))
    assert refused.value.code == code


def test_a_veto_and_hooks_of_other_tenants(engine: RunningEngine, caller: Caller) -> None:
    hook = caller.rpc("hooks.register", name="closed", trigger="pre_workflow", action=function("test-veto"))
    execution_id = caller.execute(caller.create({"id": "a"}))
    status = caller.until_status(execution_id, "failed")
    assert status["error_details"]["error_code"] == "HOOK_VETO"
    other = engine.caller(f"other-{os.getpid()}")
    with pytest.raises(Refused) as refused:
        other.rpc("hooks.get", hook_id=hook["hook_id"])
    assert refused.value.code == -32014
    began = time.monotonic()
    other.until_completed(other.execute(other.create({"id": "a"})))
    assert time.monotonic() - began < 60
    caller.rpc("hooks.delete", hook_id=hook["hook_id"])
