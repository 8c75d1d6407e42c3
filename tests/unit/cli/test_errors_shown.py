"""How an execution's error reads in a terminal."""

import pytest

from cli.tables import describe_error

FAILED = {"error_code": "TASK_FAILED", "error_message": "no seat", "failed_task": "t3"}


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({}, ""),
        ({"compensation_status": "not_required", "details": {}}, ""),
        ({"compensation_status": "completed", "details": {"left": []}}, "; compensation completed"),
        (
            {"compensation_status": "partial", "details": {"left": ["t2", "t1"]}},
            "; compensation partial, left: t2, t1",
        ),
    ],
)
def test_what_was_left_is_named(more: dict[str, object], shown: str) -> None:
    assert describe_error({**FAILED, **more}) == f"TASK_FAILED: no seat (task t3){shown}"
