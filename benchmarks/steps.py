"""Runs of whole graphs of no-op tasks, one at a time, beside the same on raw Temporal: ours, theirs, ours, theirs.

Both sides are timed by what is recorded durably: here the audit log's times of commit, there the server's history.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

from benchmarks.baseline_client import RunTimes
from benchmarks.engine import moment
from benchmarks.processes import spent
from benchmarks.results import CPU_SECONDS, Row, Target
from benchmarks.session import ROUNDS_SECONDS_MAX, Session
from benchmarks.shapes import Dependencies, definition, fan_out, far_graph, random_graph, wide
from benchmarks.shapes import chain as chain_graph

STEPS: Final = 10
TASKS: Final = 1_000
AGENTS: Final = 100
LARGE_TASKS: Final = 10_000
QUICK_TASKS: Final = 300
LARGE_AGENTS: Final = 100
WORKER: Final = "worker"
TENANT: Final = "default"
MS_PER_SECOND: Final = 1_000
BYTES_PER_MB: Final = 1_000_000

CHAIN_ROUNDS: Final = (40, 12)
CHAIN_POLL_SECONDS: Final = 0.1
GRAPH_ROUNDS: Final = (8, 3)
LARGE_ROUNDS: Final = (3, 2)
LARGE_BASELINE_ROUNDS: Final = 1
"""One takes some twenty seconds."""
LARGE_SECONDS_MAX: Final = 120.0
GRAPH_POLL_SECONDS: Final = 0.3

FUSED_TARGET: Final = Target("p50", 1.2)
TURNS_TARGET: Final = Target("p50", 5)
GRAPH_TARGET: Final = Target("p50", 6_000, at_least=True)
GRAPH_RATIO_TARGET: Final = Target("ratio", 10, at_least=True)
FAN_OUT_TARGET: Final = Target("p50", 10_000, at_least=True)
EVENTS_TARGET: Final = Target("p50", 1_501)
MEMORY_TARGET: Final = Target("p95", 500)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run of ours showed, beside its times."""

    times: RunTimes
    cpu_seconds: dict[str, float]
    worker_peak_bytes: int
    history_events: int
    history_runs: int


@dataclass(slots=True)
class Sides:
    ours: list[Measured] = field(default_factory=list)
    theirs: list[RunTimes] = field(default_factory=list)

    @property
    def our_times(self) -> list[RunTimes]:
        return [run.times for run in self.ours]


def chain(session: Session) -> list[Row]:
    """One role: the chain goes out as one assignment."""
    return _chain(session, f"chain of {STEPS}", 1, FUSED_TARGET)


def turns(session: Session) -> list[Row]:
    """Two roles in turn: each step is an assignment of its own."""
    return _chain(session, f"chain of {STEPS}, two roles in turn", 2, TURNS_TARGET)


def _chain(session: Session, name: str, roles: int, target: Target) -> list[Row]:
    graph = chain_graph(STEPS)
    document = definition(graph, 1, roles=roles)
    sides = _alternating(session, name, graph, document, CHAIN_ROUNDS, CHAIN_POLL_SECONDS)
    return [
        Row(
            f"a step of a {name}",
            tuple(run.tasks_ms / STEPS for run in sides.our_times),
            tuple(run.tasks_ms / STEPS for run in sides.theirs),
            target,
            "first task assigned to last one completed",
        ),
        _whole_run(name, sides),
    ]


def random_run(session: Session) -> list[Row]:
    return _graph(session, "random graph", random_graph(TASKS))


def fan_out_run(session: Session) -> list[Row]:
    return _graph(session, "fan-out", fan_out(TASKS))


def _graph(session: Session, kind: str, graph: Dependencies) -> list[Row]:
    name = f"{kind} of {len(graph):,}"
    sides = _alternating(session, name, graph, definition(graph, AGENTS), GRAPH_ROUNDS, GRAPH_POLL_SECONDS)
    return [
        Row(
            name,
            tuple(run.tasks_ms for run in sides.our_times),
            tuple(run.tasks_ms for run in sides.theirs),
            note="first task assigned to last one completed",
        ),
        _whole_run(name, sides),
    ]


def large_random_run(session: Session) -> list[Row]:
    """With what it costs besides time: history, memory of the worker, CPU of each part."""
    graph = far_graph(session.scaled(LARGE_TASKS, QUICK_TASKS))
    name = f"random graph of {len(graph):,}"
    sides = _large(session, name, graph)
    rate = _rate(session, name, graph, sides, GRAPH_TARGET)
    return [
        rate,
        Row(
            f"{name}, times raw Temporal",
            rate.samples,
            rate.baseline,
            session.target(GRAPH_RATIO_TARGET),
            "",
            rate.unit,
        ),
        _whole_run(name, sides),
        Row(
            f"{name}: history of all runs",
            tuple(float(run.history_events) for run in sides.ours),
            target=session.target(EVENTS_TARGET),
            unit="events",
            details={"runs": fmean(run.history_runs for run in sides.ours)},
            details_of="how many there were",
        ),
        Row(
            f"{name}: memory of a worker",
            tuple(run.worker_peak_bytes / BYTES_PER_MB for run in sides.ours),
            target=session.target(MEMORY_TARGET),
            unit="MB",
            note="the most that it had at once, resident",
        ),
    ]


def large_fan_out_run(session: Session) -> list[Row]:
    graph = wide(session.scaled(LARGE_TASKS, QUICK_TASKS))
    name = f"fan-out of {len(graph):,}, no join"
    sides = _large(session, name, graph)
    return [_rate(session, name, graph, sides, FAN_OUT_TARGET), _whole_run(name, sides)]


def _large(session: Session, name: str, graph: Dependencies) -> Sides:
    document = definition(graph, LARGE_AGENTS)
    return _alternating(session, name, graph, document, LARGE_ROUNDS, GRAPH_POLL_SECONDS, LARGE_BASELINE_ROUNDS)


def _rate(session: Session, name: str, graph: Dependencies, sides: Sides, target: Target) -> Row:
    return Row(
        name,
        _rates(len(graph), sides.our_times),
        _rates(len(graph), sides.theirs),
        session.target(target),
        f"first task assigned to last one completed; {LARGE_AGENTS} agents",
        "tasks/s",
        _mean_cpu(sides.ours),
        CPU_SECONDS,
    )


def _rates(tasks: int, runs: Sequence[RunTimes]) -> tuple[float, ...]:
    return tuple(tasks * MS_PER_SECOND / run.tasks_ms for run in runs)


def _whole_run(name: str, sides: Sides) -> Row:
    ours = tuple(run.whole_ms for run in sides.our_times)
    return Row(f"whole run, {name}", ours, tuple(run.whole_ms for run in sides.theirs))


def _mean_cpu(runs: Sequence[Measured]) -> dict[str, float]:
    kinds = dict.fromkeys(kind for run in runs for kind in run.cpu_seconds)
    return {kind: fmean(run.cpu_seconds.get(kind, 0.0) for run in runs) for kind in kinds}


def _alternating(
    session: Session,
    what: str,
    graph: Dependencies,
    document: dict[str, Any],
    rounds: tuple[int, int],
    poll_seconds: float,
    baseline_rounds: int | None = None,
) -> Sides:
    """Ours, theirs, ours, theirs; with `baseline_rounds`, theirs only so often."""
    workflow_id = session.api.create(document).result["workflow_id"]
    for _ in session.warm_up(what):
        _run(session, workflow_id, poll_seconds)
        session.baseline.run(graph if baseline_rounds is None else graph[:QUICK_TASKS])
    sides = Sides()
    seconds_max = ROUNDS_SECONDS_MAX if baseline_rounds is None else LARGE_SECONDS_MAX
    for number in session.rounds(what, *rounds, seconds_max):
        sides.ours.append(_run(session, workflow_id, poll_seconds))
        if baseline_rounds is None or number < baseline_rounds:
            sides.theirs.append(session.baseline.run(graph))
    return sides


def _run(session: Session, workflow_id: str, poll_seconds: float) -> Measured:
    api, processes = session.api, session.engine.processes
    processes.reset_peaks(WORKER)
    before = processes.cpu_seconds()
    began = time.time()
    execution_id = api.execute(workflow_id).result["execution_id"]
    ended = api.ended(workflow_id, execution_id, poll_seconds)
    cpu_seconds = spent(before, processes.cpu_seconds())
    peak_bytes = processes.peak_bytes(WORKER)
    events = api.events(execution_id)
    first = min(moment(event["recorded_at"]) for event in events if event["event_type"] == "agent.task_assigned")
    last = max(moment(event["recorded_at"]) for event in events if event["event_type"] == "task.completed")
    history_events, history_runs = session.baseline.history_events(f"{TENANT}/{execution_id}")
    return Measured(
        RunTimes((last - first) * MS_PER_SECOND, (moment(ended["completed_at"]) - began) * MS_PER_SECOND),
        cpu_seconds,
        peak_bytes,
        history_events,
        history_runs,
    )
