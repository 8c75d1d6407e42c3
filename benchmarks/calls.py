"""Latencies of the gateway's methods, over HTTP on one connection that stays open."""

import time
from typing import Final

from benchmarks.engine import Api, BrokenError
from benchmarks.results import Row, Target
from benchmarks.session import Session
from benchmarks.shapes import LANE_TASK_MS, chain, definition, lanes, random_graph

LARGE_TASKS: Final = 1_000
SMALL_TASKS: Final = 10
AGENTS: Final = 16
LANES: Final = 4
LANE_LENGTH: Final = 1_000
PROGRESS_TIMEOUT_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.02
LARGE_POLL_SECONDS: Final = 0.2


def create(session: Session) -> list[Row]:
    """Each definition is new to the engine."""
    large, small = random_graph(LARGE_TASKS), chain(SMALL_TASKS)
    for graph in (large, small):  # connections, prepared statements, code paths
        for _ in session.warm_up("create", 3):
            session.api.create(definition(graph, AGENTS))
    rounds = session.rounds("create, 1,000 tasks", 100, 30)
    of_large = tuple(session.api.create(definition(large, AGENTS)).latency_ms for _ in rounds)
    rounds = session.rounds("create, 10 tasks", 100, 30)
    of_small = tuple(session.api.create(definition(small, AGENTS)).latency_ms for _ in rounds)
    return [
        Row("create, 1,000 tasks", of_large, target=Target("p95", 100)),
        Row("create, 10 tasks", of_small),
    ]


def execute(session: Session) -> list[Row]:
    """Until it is answered, that is stored and started in Temporal. One execution at a time."""
    large = random_graph(LARGE_TASKS)
    _run_once(session.api, LARGE_POLL_SECONDS, definition(large, AGENTS))
    of_large = []
    for _ in session.rounds("execute, 1,000 tasks", 20, 6):
        of_large.append(_run_once(session.api, LARGE_POLL_SECONDS, definition(large, AGENTS)))
    workflow_id = session.api.create(definition(chain(SMALL_TASKS), 1)).result["workflow_id"]
    of_small = []
    for _ in session.rounds("execute, 10 tasks", 60, 20):
        started = session.api.execute(workflow_id)
        of_small.append(started.latency_ms)
        session.api.completed(started.result["execution_id"], POLL_SECONDS)
    target = Target("p95", 1_000)
    return [
        Row("execute, 1,000 tasks", tuple(of_large), target=target, note="first time: the plan is not in memory"),
        Row("execute, 10 tasks", tuple(of_small), target=target),
    ]


def _run_once(api: Api, poll_seconds: float, document: dict[str, object]) -> float:
    started = api.execute(api.create(document).result["workflow_id"])
    api.completed(started.result["execution_id"], poll_seconds)
    return started.latency_ms


def status(session: Session) -> list[Row]:
    rows = []
    for tasks, graph in ((LARGE_TASKS, random_graph(LARGE_TASKS)), (SMALL_TASKS, chain(SMALL_TASKS))):
        created = session.api.create(definition(graph, AGENTS))
        execution_id = session.api.execute(created.result["workflow_id"]).result["execution_id"]
        session.api.completed(execution_id, POLL_SECONDS)
        rounds = session.rounds(f"status, {tasks:,} tasks", 300, 100)
        samples = tuple(session.api.status(execution_id).latency_ms for _ in rounds)
        rows.append(Row(f"status, {tasks:,} tasks", samples, target=Target("p95", 10)))
    return rows


def control(session: Session) -> list[Row]:
    """Pause and resume, again and again, of a run that is busy: four agents with tasks of 50 ms each.

    Pause is answered when its checkpoint is committed, resume when the execution goes on.
    """
    api = session.api
    document = definition(lanes(LANES, LANE_LENGTH), LANES, LANE_TASK_MS)
    execution_id = api.execute(api.create(document).result["workflow_id"]).result["execution_id"]
    reference = {"execution_id": execution_id}
    done = _progress_beyond(api, execution_id, 0)
    paused, resumed = [], []
    for _ in session.rounds("pause and resume", 40, 15):
        paused.append(api.call("workflow.pause", reference).latency_ms)
        resumed.append(api.call("workflow.resume", reference).latency_ms)
        done = _progress_beyond(api, execution_id, done)
    api.call("workflow.cancel", reference)
    return [
        Row("pause", tuple(paused), target=Target("p95", 200)),
        Row("resume", tuple(resumed), target=Target("p95", 1_000)),
    ]


def _progress_beyond(api: Api, execution_id: str, done: int) -> int:
    """Wait until more tasks are completed than `done` and what a resumed run starts with is over."""
    deadline = time.monotonic() + PROGRESS_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        completed: int = api.status(execution_id).result["performance_metrics"]["tasks_completed"]
        if completed >= done + 2 * LANES:
            return completed
        time.sleep(POLL_SECONDS)
    raise BrokenError("a running execution makes no progress")
