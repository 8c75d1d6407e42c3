from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from benchmarks.crowds import assignment_waits_ms
from benchmarks.shapes import chain

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def event(event_type: str, task: int, at_ms: int, committed_after_ms: int = 0) -> dict[str, Any]:
    at = BEGAN + timedelta(milliseconds=at_ms)
    recorded = at + timedelta(milliseconds=committed_after_ms)
    return {
        "event_type": event_type,
        "timestamp": at.isoformat(),
        "recorded_at": recorded.isoformat(),
        "payload": {"task_id": f"task-{task}"},
    }


def test_an_assignment_waits_from_the_end_of_the_last_dependency_at_its_agent() -> None:
    log = [
        event("agent.task_assigned", 0, 0),
        event("agent.task_assigned", 1, 0),
        event("task.completed", 0, 100),
        event("task.completed", 1, 250, committed_after_ms=20),
        event("agent.task_assigned", 2, 260, committed_after_ms=10),
    ]
    graph: list[list[int]] = [[], [], [0, 1]]
    assert assignment_waits_ms(log, graph, "timestamp") == [pytest.approx(10)]
    assert assignment_waits_ms(log, graph, "recorded_at") == [pytest.approx(20)]


def test_tasks_without_dependencies_wait_for_nothing() -> None:
    assert assignment_waits_ms([event("agent.task_assigned", 0, 5)], chain(1), "timestamp") == []
