"""The command as people use it, against an engine of its own with real servers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ORCHESTRATOR = Path(sys.executable).with_name("orchestrator")
TIMEOUT_SECONDS = 300

DIAMOND = """
name: diamond
version: "1"
orchestration_pattern: supervisor
agents: {worker: {type: synthetic, count: 2}}
tasks:
  - {id: a, agent: worker, input: {result: {n: 1}}}
  - {id: b, agent: worker, depends_on: [a], input: {duration_ms: 100}}
  - {id: c, agent: worker, depends_on: [a], input: {duration_ms: 100}}
  - {id: d, agent: worker, depends_on: [b, c]}
coordination: {type: hybrid}
"""

pytestmark = pytest.mark.acceptance


@dataclass(frozen=True, slots=True)
class Engine:
    data_dir: Path
    announced: dict[str, Any]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"ORCHESTRATOR_DATA_DIR": str(self.data_dir), "NO_COLOR": "1", "COLUMNS": "200"}
        return subprocess.run(
            [ORCHESTRATOR, *arguments],
            env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    data_dir = tmp_path_factory.mktemp("engine")
    process = subprocess.Popen(
        [ORCHESTRATOR, "up", "--data-dir", data_dir, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        # Ends with an empty line if the engine does; the test's own timeout covers the rest.
        announced = json.loads(process.stdout.readline() or "{}")
        assert "url" in announced, announced
        yield Engine(data_dir, announced)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(TIMEOUT_SECONDS)
        process.stdout.close()
    assert code == 0


@pytest.fixture(scope="module")
def diamond(engine: Engine) -> str:
    file = engine.data_dir / "diamond.yaml"
    file.write_text(DIAMOND)
    return str(file)


@pytest.fixture(scope="module")
def finished(engine: Engine, diamond: str) -> dict[str, Any]:
    """The outcome of one execution that was followed to its end."""
    document: dict[str, Any] = engine.json("run", diamond, "--follow", "--input", '{"for": "a test"}')
    return document


def test_a_followed_run_ends_with_states_and_results(finished: dict[str, Any]) -> None:
    assert finished["execution"]["status"] == "completed"
    assert set(finished["execution"]["task_states"].values()) == {"completed"}
    assert finished["results"]["a"] == {"n": 1}
    assert set(finished["results"]) == {"a", "b", "c", "d"}


def test_status_list_and_events_tell_the_same_story(engine: Engine, finished: dict[str, Any]) -> None:
    execution_id = finished["execution"]["execution_id"]
    assert engine.json("status", execution_id)["status"] == "completed"
    listed = {item["execution_id"]: item for item in engine.json("list", "--status", "completed")["items"]}
    assert listed[execution_id]["tasks_completed"] == 4
    events = engine.json("events", execution_id)["items"]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    done = [event["payload"]["task_id"] for event in events if event["event_type"] == "task.completed"]
    assert (done[0], set(done[1:3]), done[3]) == ("a", {"b", "c"}, "d")
    assert engine.run("status", execution_id).returncode == 0
    assert len(engine.run("events", execution_id).stdout.splitlines()) == len(events)


def test_the_history_replays(engine: Engine, finished: dict[str, Any]) -> None:
    assert engine.json("replay", finished["execution"]["execution_id"])["ok"] is True


def test_a_run_is_paused_and_resumed_by_hand(engine: Engine, diamond: str) -> None:
    slow = engine.data_dir / "slow.yaml"
    slow.write_text(DIAMOND.replace("diamond", "slow").replace("duration_ms: 100", "duration_ms: 60000"))
    execution_id = engine.json("run", str(slow))["execution_id"]
    paused = engine.json("pause", execution_id)
    assert paused["status"] == "paused"
    assert engine.json("status", execution_id)["latest_checkpoint_id"] == paused["checkpoint_id"]
    assert engine.json("resume", execution_id)["status"] == "executing"
    assert engine.json("cancel", execution_id)["status"] in ("executing", "cancelled")
    followed = engine.json("events", execution_id, "--follow")["items"]
    assert followed[-1]["payload"].get("new_status") == "cancelled"
    assert engine.run("pause", execution_id).returncode == 4


def test_a_viewer_of_another_tenant_sees_nothing_and_steers_nothing(engine: Engine, finished: dict[str, Any]) -> None:
    token = engine.json("token", "--tenant", "other", "--role", "admin")["token"]
    execution_id = finished["execution"]["execution_id"]
    assert engine.json("list", "--token", token)["items"] == []
    for command in ("status", "events", "pause", "resume", "cancel"):
        result = engine.run(command, execution_id, "--token", token)
        assert result.returncode == 3, command
        assert execution_id not in result.stderr


def test_problems_are_told_without_a_stack_trace(engine: Engine) -> None:
    unknown = engine.run("status", "00000000-0000-4000-8000-000000000000", "--json")
    assert unknown.returncode == 3
    assert json.loads(unknown.stdout)["error"]["code"] == "NOT_FOUND"
    broken = engine.data_dir / "broken.yaml"
    broken.write_text(DIAMOND.replace("depends_on: [b, c]", "depends_on: [b, zz]"))
    refused = engine.run("run", str(broken), "--json")
    assert refused.returncode == 1
    assert "zz" in json.dumps(json.loads(refused.stdout))
    assert "Traceback" not in unknown.stderr + refused.stderr


def test_doctor_finds_the_running_engine(engine: Engine) -> None:
    checks = {check["name"]: check for check in engine.json("doctor")["checks"]}
    assert checks["engine"]["state"] == "ok"
    assert engine.announced["url"] in checks["engine"]["detail"]


def test_the_agents_address_is_a_login_of_the_tenants_own(engine: Engine) -> None:
    document = engine.json("agent-url", "--tenant", "acme")
    assert document["url"].startswith("redis://agent-acme:")
    assert document["url"] != engine.announced["redis_url"]
