"""What the audit log says of an execution: each attempt of each task, and how the run compares with its plan."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from engine.contracts.plan import Plan

AGENT_LOST: Final = "AGENT_LOST"
"""The error of an attempt whose process has gone."""

Outcome = Literal["open", "success", "failed", "lost"]


@dataclass(slots=True)
class Run:
    """One attempt of a task."""

    task_id: str
    attempt: int
    agent_id: str
    host_id: str
    assigned: datetime
    started: datetime | None = None
    ended: datetime | None = None
    outcome: Outcome = "open"

    @property
    def seconds(self) -> float:
        if self.ended is None:
            return 0.0
        return (self.ended - (self.started or self.assigned)).total_seconds()


@dataclass(frozen=True, slots=True)
class Takeover:
    """A task whose process was lost, and the attempt that completed it elsewhere."""

    lost: Run
    taken: Run

    @property
    def seconds(self) -> float:
        """From the loss to the start of the new attempt."""
        assert self.lost.ended is not None  # a lost run has ended  # noqa: S101
        return ((self.taken.started or self.taken.assigned) - self.lost.ended).total_seconds()


def read_runs(events: Iterable[Mapping[str, Any]]) -> list[Run]:
    """The attempts in the order in which they were assigned, from the items of the audit log."""
    hosts: dict[str, str] = {}
    runs: dict[tuple[str, int], Run] = {}
    for event in events:
        payload, at = event["payload"], datetime.fromisoformat(event["timestamp"])
        run = runs.get((payload.get("task_id", ""), payload.get("attempt", 0)))
        match event["event_type"]:
            case "agent.bound":
                hosts[payload["agent_id"]] = payload["host_id"]
            case "agent.task_assigned":
                agent_id = payload["agent_id"]
                key = (payload["task_id"], payload["attempt"])
                runs[key] = Run(*key, agent_id, hosts.get(agent_id, ""), at)
            case "agent.task_started" if run is not None:
                run.started = at
            case "task.completed" if run is not None:
                run.ended, run.outcome = at, _outcome(payload)
    return list(runs.values())


def _outcome(payload: Mapping[str, Any]) -> Outcome:
    if payload["status"] == "success":
        return "success"
    return "lost" if payload["error"]["code"] == AGENT_LOST else "failed"


def find_takeover(runs: Sequence[Run], host_id: str) -> Takeover | None:
    """The task that was lost with that process and completed, once, by another."""
    for lost in runs:
        if lost.outcome == "lost" and lost.host_id == host_id and lost.started is not None:
            done = [run for run in runs if run.task_id == lost.task_id and run.outcome == "success"]
            if len(done) == 1 and done[0].attempt > lost.attempt and done[0].host_id != host_id:
                return Takeover(lost, done[0])
    return None


def completed_once(plan: Plan, runs: Sequence[Run]) -> bool:
    """Whether each task of the plan was completed, and none twice."""
    return sorted(run.task_id for run in runs if run.outcome == "success") == sorted(task.id for task in plan.tasks)


@dataclass(frozen=True, slots=True)
class TaskTiming:
    """One task, planned and actual, in seconds from the start of the execution's first task."""

    task_id: str
    agent_id: str
    attempts: int
    planned_start: float
    planned_seconds: float
    actual_start: float
    actual_seconds: float
    """From its first attempt's start to its completion: a lost attempt counts."""
    planned_critical: bool
    actual_critical: bool


@dataclass(frozen=True, slots=True)
class Timings:
    """A completed execution against its plan."""

    tasks: tuple[TaskTiming, ...]
    planned_path: tuple[str, ...]
    planned_seconds: float
    actual_path: tuple[str, ...]
    actual_seconds: float


def compare(plan: Plan, runs: Sequence[Run]) -> Timings:
    """All tasks must have been completed."""
    first: dict[str, datetime] = {}
    done: dict[str, Run] = {}
    end: dict[str, datetime] = {}
    for run in runs:
        first.setdefault(run.task_id, run.started or run.assigned)
        if run.outcome == "success" and run.ended is not None:
            done[run.task_id], end[run.task_id] = run, run.ended
    path = _actual_path(plan, end)
    begin = min(first.values())
    rows = []
    for task in plan.tasks:
        rows.append(
            TaskTiming(
                task_id=task.id,
                agent_id=done[task.id].agent_id,
                attempts=done[task.id].attempt,
                planned_start=task.earliest_start_seconds,
                planned_seconds=task.estimate_seconds,
                actual_start=(first[task.id] - begin).total_seconds(),
                actual_seconds=(end[task.id] - first[task.id]).total_seconds(),
                planned_critical=task.on_critical_path,
                actual_critical=task.id in path,
            )
        )
    return Timings(
        tasks=tuple(sorted(rows, key=lambda row: row.actual_start)),
        planned_path=tuple(plan.tasks[i].id for i in plan.critical_path),
        planned_seconds=plan.critical_path_seconds,
        actual_path=path,
        actual_seconds=(end[path[-1]] - first[path[0]]).total_seconds(),
    )


def _actual_path(plan: Plan, end: Mapping[str, datetime]) -> tuple[str, ...]:
    """From the task that ended last back over the dependency that each waited for longest."""
    by_id = {task.id: task for task in plan.tasks}
    path = [max(end, key=lambda task_id: end[task_id])]
    while dependencies := [plan.tasks[i].id for i in by_id[path[-1]].depends_on]:
        path.append(max(dependencies, key=lambda task_id: end[task_id]))
    return tuple(reversed(path))
