"""Many executions at once. Timed from the first request to execute to the last end that is recorded.

All are asked for over the gateway, on several connections at once, as fast as it answers.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from benchmarks.engine import Api, BrokenError, RunningEngine, moment
from benchmarks.processes import spent
from benchmarks.results import CPU_SECONDS, Row, Target
from benchmarks.session import Session
from benchmarks.shapes import Dependencies, definition
from benchmarks.shapes import chain as chain_graph

STEPS: Final = 10
CONNECTIONS: Final = 16
"""Of the client; each has one request at a time."""
CROWD_TIMEOUT_SECONDS: Final = 120.0
CHAINS: Final = (100, 8)
EXECUTIONS: Final = (1_000, 20)
WAITING: Final = (1_000, 5)
WAITING_STEPS: Final = (10, 3)
WAITING_TASK_MS: Final = (10_000, 200)
WAITING_TIMEOUT_SECONDS: Final = 400.0
ROUNDS: Final = (3, 2)
ROUNDS_SECONDS_MAX: Final = 60.0
MS_PER_SECOND: Final = 1_000
AFTER_LAST: Final = "after the last dependency's end"

FUSED_TARGET: Final = Target("p50", 800, at_least=True)
TURNS_TARGET: Final = Target("p50", 350, at_least=True)
EXECUTIONS_TARGET: Final = Target("ratio", 0.6, at_least=True)
ASSIGNMENT_TARGET: Final = Target("p95", 100)


def chains(session: Session) -> list[Row]:
    count = session.scaled(*CHAINS)
    return [
        _chains(session, f"{count} chains of {STEPS} at once", count, 1, FUSED_TARGET),
        _chains(session, f"{count} chains of {STEPS} at once, two roles in turn", count, 2, TURNS_TARGET),
    ]


def _chains(session: Session, name: str, count: int, roles: int, target: Target) -> Row:
    graph = chain_graph(STEPS)
    ours, theirs, cpu_seconds = _alternating(session, name, partial(definition, graph, 1, roles=roles), count, graph)
    steps = count * STEPS
    return Row(
        name,
        tuple(steps / seconds for seconds in ours),
        tuple(steps / seconds for seconds in theirs),
        session.target(target),
        "first request to last end recorded",
        "steps/s",
        cpu_seconds,
        CPU_SECONDS,
    )


def one_task_executions(session: Session) -> list[Row]:
    """Beside as many empty workflows on the same server, without gateway, agents or database."""
    count = session.scaled(*EXECUTIONS)
    name = f"{count:,} one-task executions at once"
    document = partial(definition, chain_graph(1), 1)
    ours, theirs, cpu_seconds = _alternating(session, name, document, count, None)
    return [
        Row(
            name,
            tuple(count / seconds for seconds in ours),
            tuple(count / seconds for seconds in theirs),
            session.target(EXECUTIONS_TARGET),
            "beside empty workflows; first request to last end recorded",
            "executions/s",
            cpu_seconds,
            CPU_SECONDS,
        )
    ]


def long_executions(session: Session) -> list[Row]:
    """Chains of tasks that take long, of two roles in turn, so that the engine assigns each one. Two minutes."""
    count, steps = session.scaled(*WAITING), session.scaled(*WAITING_STEPS)
    duration_ms = session.scaled(*WAITING_TASK_MS)
    name = f"{count:,} executions at once, {steps} tasks of {duration_ms / MS_PER_SECOND:g} s in turn"
    waits: list[float] = []
    committed: list[float] = []
    cpu_seconds: dict[str, float] = {}
    for _ in session.rounds(name, 1, 1):
        document = definition(chain_graph(steps), 1, duration_ms, roles=2)
        before = session.engine.processes.cpu_seconds()
        _, items = _run(session.engine, document, count, WAITING_TIMEOUT_SECONDS)
        cpu_seconds = spent(before, session.engine.processes.cpu_seconds())
        for item in items:
            events = session.api.events(item["execution_id"])
            waits += assignment_waits_ms(events, chain_graph(steps), "timestamp")
            committed += assignment_waits_ms(events, chain_graph(steps), "recorded_at")
    target = session.target(ASSIGNMENT_TARGET)
    return [
        Row(f"{name}: assignment", tuple(waits), (), target, AFTER_LAST, "ms", cpu_seconds, CPU_SECONDS),
        Row(f"{name}: assignment, committed", tuple(committed), (), target, AFTER_LAST),
    ]


def assignment_waits_ms(events: list[dict[str, Any]], graph: Dependencies, clock: str) -> list[float]:
    """For each task with dependencies: from the end of the last, at its agent, to its own assignment by that clock."""
    ended: dict[str, float] = {}
    waits = []
    for event in events:
        payload = event["payload"]
        if event["event_type"] == "task.completed":
            ended[payload["task_id"]] = moment(event["timestamp"])
        elif event["event_type"] == "agent.task_assigned":
            befores = graph[int(payload["task_id"].removeprefix("task-"))]
            if befores:
                last = max(ended[f"task-{before}"] for before in befores)
                waits.append((moment(event[clock]) - last) * MS_PER_SECOND)
    return waits


def _alternating(
    session: Session, what: str, document: Callable[[], dict[str, Any]], count: int, baseline: Dependencies | None
) -> tuple[list[float], list[float], dict[str, float]]:
    """Seconds of ours, of theirs, and CPU seconds of one of ours; each of ours is a workflow of its own."""
    for _ in session.warm_up(what):
        _run(session.engine, document(), max(count // 10, 1), CROWD_TIMEOUT_SECONDS)
        session.baseline.crowd(max(count // 10, 1), baseline)
    ours: list[float] = []
    theirs: list[float] = []
    cpu_seconds: dict[str, float] = {}
    for _ in session.rounds(what, *ROUNDS, ROUNDS_SECONDS_MAX):
        before = session.engine.processes.cpu_seconds()
        ours.append(_run(session.engine, document(), count, CROWD_TIMEOUT_SECONDS)[0])
        cpu_seconds = spent(before, session.engine.processes.cpu_seconds())
        theirs.append(session.baseline.crowd(count, baseline))
    return ours, theirs, cpu_seconds


def _run(
    engine: RunningEngine, document: dict[str, Any], count: int, timeout_seconds: float
) -> tuple[float, list[dict[str, Any]]]:
    workflow_id = engine.api.create(document).result["workflow_id"]
    with ExitStack() as stack:
        clients = [engine.another_client() for _ in range(min(CONNECTIONS, count))]
        for client in clients:
            stack.callback(client.close)
        pool = stack.enter_context(ThreadPoolExecutor(len(clients)))
        began = time.time()
        shares = [pool.submit(_execute, client, workflow_id, numbers) for client, numbers in _shares(clients, count)]
        started = [execution_id for share in shares for execution_id in share.result()]
    if len(set(started)) != count:
        raise BrokenError(f"{len(set(started))} of {count} executions were started")
    items = engine.api.all_completed(workflow_id, count, timeout_seconds)
    return max(moment(item["completed_at"]) for item in items) - began, items


def _shares(clients: list[Api], count: int) -> list[tuple[Api, range]]:
    return [(client, range(number, count, len(clients))) for number, client in enumerate(clients)]


def _execute(client: Api, workflow_id: str, numbers: range) -> list[str]:
    return [client.execute(workflow_id, allow_concurrent=True).result["execution_id"] for _ in numbers]
