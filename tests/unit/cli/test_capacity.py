"""What the command shows of the engine's capacity and of waiting for it."""

from typing import Any

from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import EXECUTION_ID, FakeEngine, status_of

At = tuple[str, ...]


def numbers(**changes: Any) -> dict[str, Any]:
    used = {"executions": 1200, "agents": 9, "cpu_cores": 4.5, "memory_bytes": 3 * 1024**3}
    return {
        "limits": {"executions": 2000, "agents": None, "cpu_cores": 64.0, "memory_bytes": None},
        "in_use": used,
        "waiting": {"high": 0, "normal": 17, "low": 1000},
        "waiting_max": 1000,
        "accepts": {"high": True, "normal": True, "low": False},
        "tenant": {
            "in_use": used | {"executions": 3},
            "waiting": {"high": 0, "normal": 2, "low": 0},
            "executions_max": None,
            "available_executions": 0,
        },
        "executions": {"planning": 0, "executing": 3, "paused": 0},
        "hosts": 2,
        "slots": 16,
        **changes,
    }


def test_capacity_shows_the_engine_beside_the_tenant(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    engine.documents["/api/v1/capacity"] = numbers()
    outcome = orchestrator("capacity", *at)
    assert outcome.code == 0
    rows = [line.split() for line in outcome.stdout.splitlines()]
    assert ["executions", "2000", "1200", "3"] in rows
    assert ["agents", "no", "limit", "9", "9"] in rows
    assert ["memory", "no", "limit", "3.0", "GiB", "3.0", "GiB"] in rows
    assert ["waiting,", "normal", "17", "2"] in rows
    assert ["refused", "at", "present", "low"] in rows
    assert ["would", "start", "at", "once", "0"] in rows
    assert orchestrator("capacity", *at, "--json").document == numbers()


def test_with_room_left_nothing_is_refused(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    tenant = numbers()["tenant"] | {"available_executions": None}
    accepts = {"high": True, "normal": True, "low": True}
    engine.documents["/api/v1/capacity"] = numbers(tenant=tenant, accepts=accepts)
    shown = orchestrator("capacity", *at).stdout
    assert "nothing" in shown
    assert "no limit" in shown


def test_status_shows_the_place_in_the_queue_and_where_fewer_agents_work(
    orchestrator: Orchestrator, engine: FakeEngine, at: At
) -> None:
    waiting = {
        "current_phase": "queued",
        "queue": {"priority": "low", "queued_at": "2026-01-01T00:00:00Z", "ahead": 7},
        "allotment": {"coder": {"wanted": 4, "allotted": 2}, "tester": {"wanted": 1, "allotted": 1}},
    }
    engine.statuses = [status_of("planning", a="pending") | waiting]
    shown = orchestrator("status", EXECUTION_ID, *at).stdout
    assert "low priority, 7 of your own before it" in shown
    assert "coder 2 of 4" in shown
    assert "tester" not in shown


def test_status_shows_which_tasks_wait_for_which_events(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    engine.statuses = [status_of("executing", a="pending") | {"awaiting": {"a": ["approval", "veto"]}}]
    rows = [line.split() for line in orchestrator("status", EXECUTION_ID, *at).stdout.splitlines()]
    assert ["awaits", "a", "approval,", "veto"] in rows
