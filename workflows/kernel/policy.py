"""What a coordination pattern decides. Everything else is the kernel's."""

from collections.abc import Iterator
from typing import Protocol

from workflows.kernel.state import AgentRun, RunState

PREFETCH_MS = 30
"""Work sent ahead to an agent, so that it need not wait for the next tick between short tasks."""

PREFETCH_TASKS_MAX = 500


def window(state: RunState, agent: AgentRun) -> int:
    """How many attempts may be with this agent: its slots, and about 30 ms of work ahead once its pace is known."""
    pace_ms = state.pace_ms.get(agent.role)
    if pace_ms is None or pace_ms > PREFETCH_MS:
        return agent.slots
    ahead = int(PREFETCH_MS * agent.slots / max(pace_ms, 0.05))
    return agent.slots + min(ahead, PREFETCH_TASKS_MAX)


class Policy(Protocol):
    """A pattern: pure, deterministic, changes nothing itself."""

    looks_ahead: bool
    """Fast tasks may go out before their dependencies are done, to the host that has those."""

    def assignments(self, state: RunState) -> Iterator[tuple[int, str]]:
        """(task index, agent id) for tasks to start now, most urgent first.

        Between two items the caller may or may not have changed the state; the policy keeps count itself.
        """
        ...
