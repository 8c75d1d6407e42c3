"""When the kernel must look again, although nothing comes in."""

from engine.contracts.execution import ExecutionStatus
from workflows.kernel.circuits import circuit_due_ms
from workflows.kernel.policy import Policy
from workflows.kernel.state import RunState


def next_due_ms(state: RunState, policy: Policy) -> int | None:
    """The earliest due time, in milliseconds since the epoch; None when only the inbox can bring news."""
    if state.undoing is not None:
        return None if state.paused else state.undoing.next_due_ms()
    times = [state.tasks[i].due_ms for i in state.in_flight]
    if policy.coordinates and not state.paused and (due_ms := policy.next_due_ms(state)) is not None:
        times.append(due_ms)
    times.extend(state.tasks[i].due_ms for i in state.delayed)
    if state.paused:
        if state.grace_due_ms is not None and state.in_flight:
            times.append(state.grace_due_ms)
    elif state.status is ExecutionStatus.EXECUTING:
        times.append(state.deadline_ms)
        if (due_ms := circuit_due_ms(state)) is not None:
            times.append(due_ms)
        times.extend(state.suspects.values())
        times.extend(state.tasks[i].due_ms for i in state.awaiting if state.tasks[i].due_ms)
        if state.completed > state.checkpointed:
            times.append(state.checkpoint_due_ms)
    return min(times, default=None)


def expects_results_soon(state: RunState, within_ms: int) -> bool:
    """Whether waiting in the tick for results is likely to pay: some running task's role is that fast, or unknown."""
    if state.status is not ExecutionStatus.EXECUTING:
        return False
    roles = {state.specs[i].role for i in state.in_flight}
    return any(state.pace_ms.get(role, 0.0) <= within_ms for role in roles)
