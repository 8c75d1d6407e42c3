"""Agents that the engine does not start: they log in with their tenant's address, register and work."""

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.audit import assert_completed, attempts, of_type
from tests.acceptance.running import AGENTS_CODE, RunningEngine, until
from tests.acceptance.shapes import braid, tasks

pytestmark = pytest.mark.acceptance

BRAID = braid(width=2, length=3)
PROTOCOL = Path(__file__).parents[2] / "docs" / "agent-protocol.md"


@contextmanager
def process_of(engine: RunningEngine, tenant: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program somewhere else: it knows the address that the operator gave it, and nothing more."""
    url = engine.command("agent-url", "--tenant", tenant)["url"]
    environment = {
        "PATH": os.environ["PATH"],
        "ORCHESTRATION_AGENT_REDIS_URL": url,
        "RECORDER_FILE": str(engine.record),
    }
    with (engine.directory / "outside.log").open("ab") as log:
        command = [sys.executable, *(argument.replace("{url}", url) for argument in arguments)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def sdk_agent(tenant: str) -> list[str]:
    return [
        "-P", "-m", "orchestration_agent", "--entry", "python:recorder:run", "--python-path", str(AGENTS_CODE),
        "--tenant", tenant, "--types", "outside", "--capabilities", "*", "--slots", "2",
    ]  # fmt: skip


def test_an_agent_process_started_elsewhere_registers_itself_and_does_the_work(engine: RunningEngine) -> None:
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    caller = engine.caller(tenant)
    with process_of(engine, tenant, *sdk_agent(tenant)) as agent:
        execution_id = caller.execute(caller.create(*tasks(BRAID), agent_type="outside"))
        caller.until_completed(execution_id)
        assert_completed(caller.events(execution_id), BRAID)
        assert {line["pid"] for line in engine.recorded(execution_id)} == {agent.pid}
        known = caller.rest("GET", "/agents").json()["items"]
        assert [host["types"] for host in known] == [["outside"]]
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(60) == 0


def test_an_execution_waits_for_an_agent_that_comes_later(engine: RunningEngine) -> None:
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    caller = engine.caller(tenant)
    execution_id = caller.execute(caller.create(*tasks(BRAID), agent_type="outside"))
    caller.until_status(execution_id, "executing")
    with process_of(engine, tenant, *sdk_agent(tenant)):
        caller.until_completed(execution_id)
    assert_completed(caller.events(execution_id), BRAID)


def test_work_of_a_killed_agent_from_outside_moves_to_the_next(engine: RunningEngine) -> None:
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    caller = engine.caller(tenant)
    with process_of(engine, tenant, *sdk_agent(tenant)) as first:
        task = {"id": "long", "input": {"held": True}}
        execution_id = caller.execute(caller.create(task, agent_type="outside"))
        until(lambda: engine.recorded(execution_id), "the first agent works on it")
    engine.release(execution_id, "long")
    with process_of(engine, tenant, *sdk_agent(tenant)) as second:
        caller.until_completed(execution_id)
    pids = [line["pid"] for line in engine.recorded(execution_id)]
    assert pids == [first.pid, second.pid, second.pid]
    events = caller.events(execution_id)
    assert_completed(events, {"long": []})
    assert attempts(events, "long") == [1, 2]


def test_the_agent_in_the_protocols_description_works_as_it_stands_there(engine: RunningEngine) -> None:
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    caller = engine.caller(tenant)
    [program] = re.findall(r"```python\n(.*?)```", PROTOCOL.read_text("utf-8"), re.DOTALL)
    file = engine.directory / "plain_agent.py"
    file.write_text(program)
    with process_of(engine, tenant, str(file), "{url}", tenant, "outside"):
        execution_id = caller.execute(caller.create(*tasks(BRAID, input={"n": 1}), agent_type="outside"))
        caller.until_completed(execution_id)
    events = caller.events(execution_id)
    assert_completed(events, BRAID)
    assert all(e["payload"]["result"] == {"echo": {"n": 1}} for e in of_type(events, "task.completed"))
