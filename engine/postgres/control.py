"""Which pause, resume, cancel or checkpoint may be asked of an execution, given what it does and what is asked."""

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Control
from engine.errors import InvalidTransitionError

_ALLOWED: dict[str, frozenset[ExecutionStatus]] = {
    "pause": frozenset({ExecutionStatus.PLANNING, ExecutionStatus.EXECUTING}),
    "resume": frozenset({ExecutionStatus.PAUSED}),
    "cancel": frozenset({ExecutionStatus.PLANNING, ExecutionStatus.EXECUTING, ExecutionStatus.PAUSED}),
    "checkpoint": frozenset({ExecutionStatus.EXECUTING, ExecutionStatus.PAUSED}),
}

_OVERRIDES: dict[str, frozenset[str]] = {
    "pause": frozenset({"checkpoint"}),
    "resume": frozenset({"checkpoint"}),
    "cancel": frozenset({"pause", "resume", "checkpoint"}),
    "checkpoint": frozenset(),
}
"""Which pending requests a new one may replace. A pause makes a checkpoint too; nothing replaces a cancellation."""


def control_in_force(status: ExecutionStatus, pending: Control | None, asked: Control) -> Control:
    """The pending request when it already does what is asked, else the one that is asked.

    Raises InvalidTransitionError when the status or the pending request forbids it.
    """
    if status not in _ALLOWED[asked.action]:
        raise InvalidTransitionError(f"cannot {asked.action} an execution that is {status}", status=status.value)
    if pending is None:
        return asked
    if pending.action == asked.action and (asked.action != "resume" or pending.checkpoint_id == asked.checkpoint_id):
        return pending
    if asked.action == "checkpoint" and pending.action == "pause":
        return pending
    if pending.action not in _OVERRIDES[asked.action]:
        raise InvalidTransitionError(
            f"cannot {asked.action} now: {pending.action} was asked and is not done yet", status=status.value
        )
    return asked
