"""`orchestrator compensations` and `checkpoints`: what is asked of the engine, and what is shown."""

from typing import Any

import pytest

from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import EXECUTION_ID, FakeEngine

At = tuple[str, ...]
CHECKPOINT_ID = "7c0d9c1e-2f6a-4a3f-9d1b-3a5e6f708192"


def left(**changes: Any) -> dict[str, Any]:
    return {
        "task_id": "book", "state": "failed", "certain": True, "attempts": 4, "blocked_by": ["pay"],
        "error_code": "REFUSED", "error_message": "too late", "actor": None, "updated_at": "2026-01-01T00:00:00Z",
        **changes,
    }  # fmt: skip


def test_steps_that_were_left_are_listed(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    page = {"items": [left()], "next_page_token": "t"}
    engine.documents[f"/api/v1/executions/{EXECUTION_ID}/compensations"] = page
    outcome = orchestrator("compensations", "list", EXECUTION_ID, *at)
    assert outcome.stdout.splitlines()[1].split() == ["book", "failed", "4", "pay", "REFUSED", "too", "late"]
    assert "--page-token t" in outcome.stderr
    assert orchestrator("compensations", "list", EXECUTION_ID, *at, "--json").document == page


@pytest.mark.parametrize(
    ("arguments", "method", "more"),
    [
        (("retry", EXECUTION_ID, "book"), "execution.retry_compensation", {}),
        (("mark-done", EXECUTION_ID, "book"), "execution.mark_compensation_done", {}),
        (
            ("mark-done", EXECUTION_ID, "book", "--reason", "by hand"),
            "execution.mark_compensation_done",
            {"reason": "by hand"},
        ),
    ],
)
def test_a_step_is_tried_again_or_marked_as_done(
    orchestrator: Orchestrator, engine: FakeEngine, at: At, arguments: At, method: str, more: dict[str, Any]
) -> None:
    answer = {"task_id": "book", "state": "retrying", "compensation_status": "partial"}
    engine.methods[method] = lambda _: answer
    outcome = orchestrator("compensations", *arguments, *at)
    assert (outcome.code, outcome.stdout) == (0, "book is retrying; compensation partial\n")
    assert engine.calls == [(method, {"execution_id": EXECUTION_ID, "task_id": "book"} | more)]
    assert orchestrator("compensations", *arguments, *at, "--json").document == answer


def test_checkpoints_are_listed(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    point = {
        "checkpoint_id": CHECKPOINT_ID, "execution_id": EXECUTION_ID, "reason": "pause", "epoch": 2,
        "completed_tasks": ["a", "b"], "in_flight": [{}], "recovery_instructions": {},
        "created_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    page = {"items": [point], "next_page_token": None}
    engine.documents[f"/api/v1/executions/{EXECUTION_ID}/checkpoints"] = page
    row = orchestrator("checkpoints", EXECUTION_ID, *at).stdout.splitlines()[1].split()
    assert (row[0], row[-4:]) == (CHECKPOINT_ID, ["pause", "2", "2", "1"])
    assert orchestrator("checkpoints", EXECUTION_ID, *at, "--json").document == page
    assert orchestrator("checkpoints", EXECUTION_ID, "--limit", "0", *at).code == 2
