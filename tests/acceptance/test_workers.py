"""Several worker processes: they share the executions, and one of them may die or stall at any time."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.audit import assert_completed
from tests.acceptance.caller import Caller
from tests.acceptance.journal import assert_journal_and_history_agree, workflow_is_closed
from tests.acceptance.running import RunningEngine, running_engine, until
from tests.acceptance.shapes import Dependencies, braid, chain, lasting, tasks
from tests.acceptance.test_kills import begun, ended

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

WORKERS = 3
STALL_SECONDS = 10.0
SHARED_WITHIN_SECONDS = 15.0
FAN: Dependencies = {"first": [], **{f"f{n}": ["first"] for n in range(12)}, "last": [f"f{n}" for n in range(12)]}
WIDE: Dependencies = {f"w{n}": [] for n in range(20)}
SHAPES: tuple[Dependencies, ...] = (chain(14), braid(width=3, length=6), FAN, WIDE)


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with running_engine(workers=WORKERS) as engine:
        engine.all_of_role("worker", WORKERS)
        yield engine


def shares(engine: RunningEngine) -> str:
    """What `doctor` says of the workers, once it finds nothing wrong with them."""
    [check] = [check for check in engine.command("doctor")["checks"] if check["name"] == "workers"]
    return str(check["detail"]) if check["state"] == "ok" else ""


def until_shared(engine: RunningEngine) -> None:
    until(
        lambda: shares(engine).startswith(f"{WORKERS} with a bridge"),
        f"{WORKERS} workers share the partitions",
        SHARED_WITHIN_SECONDS,
    )


def start_all(caller: Caller, duration_ms: int) -> dict[str, Dependencies]:
    """Several executions of each shape; execution -> its graph."""
    started: dict[str, Dependencies] = {}
    for graph in SHAPES:
        workflow_id = caller.create(*tasks(graph, input=lasting(duration_ms)), agent_type="recorder")
        for _ in range(3):
            started[caller.execute(workflow_id, allow_concurrent=True)] = graph
    return started


def assert_each_task_was_done_once(
    engine: RunningEngine, caller: Caller, started: dict[str, Dependencies], deadline_seconds: float
) -> None:
    deadline = time.monotonic() + deadline_seconds
    for execution_id, graph in started.items():
        caller.until_completed(execution_id, deadline_seconds=max(deadline - time.monotonic(), 1.0))
        assert_completed(caller.events(execution_id), graph)
        # A worker may have died between the last commit and its answer to Temporal.
        until(lambda: workflow_is_closed(engine, caller.tenant, execution_id), "Temporal has closed it")  # noqa: B023
        assert_journal_and_history_agree(engine, caller.tenant, execution_id)
        assert begun(engine, execution_id) == dict.fromkeys(graph, 1)
        assert engine.replays(caller.tenant, execution_id)


def test_they_share_the_partitions_and_all_executions_complete(engine: RunningEngine, caller: Caller) -> None:
    until_shared(engine)
    started = start_all(caller, duration_ms=20)
    assert_each_task_was_done_once(engine, caller, started, deadline_seconds=60)


def test_one_is_killed_and_another_stalls_and_nothing_is_lost_repeated_or_stuck(
    engine: RunningEngine, caller: Caller
) -> None:
    until_shared(engine)
    started = start_all(caller, duration_ms=400)
    until(lambda: all(sum(ended(engine, execution_id).values()) for execution_id in started), "all have begun")
    killed, stalled, _ = engine.all_of_role("worker", WORKERS)
    os.kill(killed, signal.SIGKILL)
    os.kill(stalled, signal.SIGSTOP)
    try:
        time.sleep(STALL_SECONDS)
    finally:
        os.kill(stalled, signal.SIGCONT)
    assert_each_task_was_done_once(engine, caller, started, deadline_seconds=90)
    until_shared(engine)


def test_each_is_killed_in_its_turn(engine: RunningEngine, caller: Caller) -> None:
    until_shared(engine)
    started = start_all(caller, duration_ms=300)
    until(lambda: all(sum(ended(engine, execution_id).values()) for execution_id in started), "all have begun")
    for pid in engine.all_of_role("worker", WORKERS):
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: pid not in engine.all_of_role("worker", WORKERS), "it was replaced")  # type: ignore[misc]
    assert_each_task_was_done_once(engine, caller, started, deadline_seconds=90)
