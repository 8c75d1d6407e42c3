"""Failures that go up three levels while workers are killed: each goes to each level once, and the teams end too."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from tests.acceptance.audit import of_type
from tests.acceptance.caller import Caller
from tests.acceptance.journal import assert_journal_and_history_agree
from tests.acceptance.running import AGENTS_CODE, RunningEngine, running_engine, until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

TASKS = 12
TEAMS = {"board": {"lead": "director", "members": ["crew"]}, "crew": {"lead": "chief", "members": ["worker"]}}
CATALOGUE = f"""
agents:
  lead:
    entry: python:leads:run
    python_path: {AGENTS_CODE}
    capabilities: "*"
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    catalogue: Path = tmp_path_factory.mktemp("hierarchy") / "catalogue.yaml"
    catalogue.write_text(CATALOGUE)
    with running_engine(catalogue=catalogue) as engine:
        yield engine


def kill_worker(engine: RunningEngine) -> None:
    [pid] = engine.all_of_role("worker", 1)
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in engine.all_of_role("worker", 1), "it was replaced")


def team_statuses(engine: RunningEngine, tenant: str, execution_id: str) -> set[WorkflowExecutionStatus | None]:
    async def ask() -> set[WorkflowExecutionStatus | None]:
        announced = engine.announced
        client = await Client.connect(announced["temporal_address"], namespace=announced["temporal_namespace"])
        handles = [client.get_workflow_handle(f"{tenant}/{execution_id}/{name}") for name in TEAMS]
        return {(await handle.describe()).status for handle in handles}

    return asyncio.run(ask())


def test_each_failure_goes_to_each_level_once_whoever_is_killed(engine: RunningEngine) -> None:
    caller: Caller = engine.caller()
    failing = {"input": {"fail": "broken"}, "retry_policy": "none"}
    tasks = [{"id": f"t{n}", "depends_on": [f"t{n - 1}"] if n % 4 else [], **failing} for n in range(TASKS)]
    workflow_id = caller.create(
        *tasks,
        types={"worker": "synthetic", "chief": "lead", "director": "lead"},
        agents=1,
        orchestration_pattern="hierarchical",
        pattern_config={"teams": TEAMS},
    )
    execution_id = caller.execute(workflow_id)
    for _ in range(2):
        seen = len(of_type(caller.events(execution_id), "escalation.decided"))
        until(lambda seen=seen: len(of_type(caller.events(execution_id), "escalation.decided")) > seen, "decisions")  # type: ignore[misc]
        kill_worker(engine)
    caller.until_completed(execution_id)
    raised = of_type(caller.events(execution_id), "escalation.raised")
    assert Counter((e["payload"]["task_id"], e["payload"]["to_level"]) for e in raised) == Counter(
        {(f"t{n}", level): 1 for n in range(TASKS) for level in ("L2", "L1")}
    )
    ended = of_type(caller.events(execution_id), "task.completed")
    attempts = Counter((e["payload"]["task_id"], e["payload"]["attempt"]) for e in ended)
    assert set(attempts.values()) == {1}
    until(
        lambda: team_statuses(engine, caller.tenant, execution_id) == {WorkflowExecutionStatus.COMPLETED},
        "the teams' workflows have ended",
    )
    assert_journal_and_history_agree(engine, caller.tenant, execution_id)
    assert engine.replays(caller.tenant, execution_id)
