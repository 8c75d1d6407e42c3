"""Runs of whole graphs of no-op tasks, beside the same on raw Temporal: ours, theirs, ours, theirs.

Both sides are timed by what is recorded durably: here the audit log's times of commit, there the server's history.
"""

import time
from typing import Final

from benchmarks.baseline_client import RunTimes
from benchmarks.engine import Api, moment
from benchmarks.results import Row, Target
from benchmarks.session import Session
from benchmarks.shapes import Dependencies, definition, fan_out, random_graph
from benchmarks.shapes import chain as chain_graph

STEPS: Final = 10
TASKS: Final = 1_000
AGENTS: Final = 100
"""As many tasks at once as the baseline's worker takes by default."""
STEP_TARGET: Final = Target("ratio", 1.5)
MS_PER_SECOND: Final = 1_000


def chain(session: Session) -> list[Row]:
    ours, theirs = _alternating(session, f"chain of {STEPS}", chain_graph(STEPS), 1, (40, 12), 0.1)
    return [
        Row(
            f"a step of a chain of {STEPS}",
            tuple(run.tasks_ms / STEPS for run in ours),
            tuple(run.tasks_ms / STEPS for run in theirs),
            STEP_TARGET,
            "first task assigned to last one completed",
        ),
        Row(
            f"whole run, chain of {STEPS}",
            tuple(run.whole_ms for run in ours),
            tuple(run.whole_ms for run in theirs),
        ),
    ]


def random_run(session: Session) -> list[Row]:
    return _large(session, "random graph", random_graph(TASKS))


def fan_out_run(session: Session) -> list[Row]:
    return _large(session, "fan-out", fan_out(TASKS))


def _large(session: Session, name: str, graph: Dependencies) -> list[Row]:
    ours, theirs = _alternating(session, f"{name} of {TASKS:,}", graph, AGENTS, (8, 3), 0.3)
    return [
        Row(
            f"{name} of {TASKS:,}",
            tuple(run.tasks_ms for run in ours),
            tuple(run.tasks_ms for run in theirs),
            note="first task assigned to last one completed",
        ),
        Row(
            f"whole run, {name} of {TASKS:,}",
            tuple(run.whole_ms for run in ours),
            tuple(run.whole_ms for run in theirs),
        ),
    ]


def _alternating(
    session: Session, what: str, graph: Dependencies, agents: int, rounds: tuple[int, int], poll_seconds: float
) -> tuple[list[RunTimes], list[RunTimes]]:
    workflow_id = session.api.create(definition(graph, agents)).result["workflow_id"]
    for _ in session.rounds(f"{what}: warming up", 1, 1):
        _run(session.api, workflow_id, poll_seconds)
        session.baseline.run(graph)
    ours: list[RunTimes] = []
    theirs: list[RunTimes] = []
    for _ in session.rounds(what, *rounds):
        ours.append(_run(session.api, workflow_id, poll_seconds))
        theirs.append(session.baseline.run(graph))
    return ours, theirs


def _run(api: Api, workflow_id: str, poll_seconds: float) -> RunTimes:
    began = time.time()
    execution_id = api.execute(workflow_id).result["execution_id"]
    view = api.completed(execution_id, poll_seconds)
    events = api.events(execution_id)
    first = min(moment(event["recorded_at"]) for event in events if event["event_type"] == "agent.task_assigned")
    last = max(moment(event["recorded_at"]) for event in events if event["event_type"] == "task.completed")
    return RunTimes((last - first) * MS_PER_SECOND, (moment(view["completed_at"]) - began) * MS_PER_SECOND)
