"""Which control requests are allowed, in every state and with every pending request."""

import itertools
from typing import Literal, get_args

import pytest

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Control
from engine.errors import InvalidTransitionError
from engine.postgres.control import control_in_force

Action = Literal["pause", "resume", "cancel", "checkpoint"]
ACTIONS: tuple[Action, ...] = get_args(Action)


def request(action: Action, request_id: str, checkpoint_id: str | None = None) -> Control:
    return Control(request_id=request_id, action=action, checkpoint_id=checkpoint_id)


def outcome(status: str, pending: Action | None, asked: Action) -> str:
    """ "asked", "pending" or "refused"."""
    before = request(pending, "before") if pending else None
    new = request(asked, "new")
    try:
        effective = control_in_force(ExecutionStatus(status), before, new)
    except InvalidTransitionError:
        return "refused"
    return "asked" if effective is new else "pending"


@pytest.mark.parametrize(
    ("action", "allowed"),
    [
        ("pause", {"planning", "executing"}),
        ("resume", {"paused"}),
        ("cancel", {"planning", "executing", "paused"}),
        ("checkpoint", {"executing", "paused"}),
    ],
)
def test_the_status_decides_what_may_be_asked(action: Action, allowed: set[str]) -> None:
    assert {status.value for status in ExecutionStatus if outcome(status, None, action) == "asked"} == allowed


@pytest.mark.parametrize(
    ("status", "pending", "asked", "expected"),
    [
        ("executing", "pause", "pause", "pending"),
        ("executing", "checkpoint", "pause", "asked"),
        ("executing", "cancel", "pause", "refused"),
        ("paused", "resume", "resume", "pending"),
        ("paused", "cancel", "resume", "refused"),
        ("paused", "checkpoint", "resume", "asked"),
        ("executing", "pause", "cancel", "asked"),
        ("paused", "resume", "cancel", "asked"),
        ("executing", "cancel", "cancel", "pending"),
        ("executing", "pause", "checkpoint", "pending"),
        ("executing", "checkpoint", "checkpoint", "pending"),
        ("paused", "resume", "checkpoint", "refused"),
        ("executing", "cancel", "checkpoint", "refused"),
        ("executing", "pause", "resume", "refused"),
    ],
)
def test_a_pending_request_is_kept_replaced_or_in_the_way(
    status: str, pending: Action, asked: Action, expected: str
) -> None:
    assert outcome(status, pending, asked) == expected


def test_nothing_replaces_a_cancellation() -> None:
    for status, asked in itertools.product(ExecutionStatus, ACTIONS):
        assert outcome(status, "cancel", asked) != "asked"


def test_a_resumption_from_another_checkpoint_is_not_the_same_request() -> None:
    pending = request("resume", "before", "one")
    with pytest.raises(InvalidTransitionError):
        control_in_force(ExecutionStatus.PAUSED, pending, request("resume", "new", "two"))
    assert control_in_force(ExecutionStatus.PAUSED, pending, request("resume", "new", "one")) is pending
