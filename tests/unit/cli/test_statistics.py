"""What the command shows of how executions have gone."""

from typing import Any

from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import FakeEngine

At = tuple[str, ...]


def row(**changes: Any) -> dict[str, Any]:
    return {
        "executions": {"planning": 1, "executing": 2, "paused": 3, "completed": 40, "failed": 5, "cancelled": 7},
        "duration_p50_seconds": 1.25,
        "duration_p95_seconds": None,
        "tasks_completed": 9,
        "tasks_failed": 0,
        "failures": {"STALLED": 1, "TASK_FAILED": 4},
        "last_started_at": None,
        **changes,
    }


def numbers(**changes: Any) -> dict[str, Any]:
    workflow = row(workflow_id="w", workflow_name="nightly", version="2.0.0", orchestration_pattern="swarm")
    return {
        "as_of": "2026-01-01T00:00:00Z",
        "total": row(),
        "patterns": {"swarm": row()},
        "items": [workflow],
        "next_page_token": None,
        **changes,
    }


def test_statistics_show_all_then_patterns_then_workflows(
    orchestrator: Orchestrator, engine: FakeEngine, at: At
) -> None:
    engine.documents["/api/v1/statistics"] = numbers()
    outcome = orchestrator("statistics", *at)
    assert outcome.code == 0
    rows = [line.split() for line in outcome.stdout.splitlines()]
    counts = ["6", "40", "5", "7", "1.25", "s", "TASK_FAILED", "4,", "STALLED", "1"]
    assert ["all", *counts] in rows
    assert ["pattern", "swarm", *counts] in rows
    assert ["nightly", "2.0.0", *counts] in rows
    assert "counted 2026-01-01T00:00:00Z" in outcome.stdout
    assert orchestrator("statistics", *at, "--json").document == numbers()


def test_before_the_first_count_and_with_more_than_are_shown_it_says_so(
    orchestrator: Orchestrator, engine: FakeEngine, at: At
) -> None:
    engine.documents["/api/v1/statistics"] = numbers(as_of=None, next_page_token="t")
    shown = orchestrator("statistics", *at, "--workflow", "w", "--limit", "1").stdout
    assert "counted not yet" in shown
    assert "--limit" in shown
