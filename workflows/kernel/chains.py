"""Fused chains: tasks that go out together to one agent, which runs one after the other without asking.

The head of a chain is assigned as any task. Those behind it ride along: in flight, but without a slot and without a
due time, until their predecessor is done. When it does not come to that, they are taken back and wait again.
"""

from collections.abc import Iterator

from engine.contracts.kernel import Attempt
from engine.contracts.limits import CHAIN_MAX
from workflows.kernel.state import Phase, RunState


def next_riders(state: RunState, head: int, agent_id: str) -> Iterator[Attempt]:
    """The attempts that go out behind the head of a chain, in order; made while the caller assigns them."""
    before = head
    for _ in range(CHAIN_MAX - 1):
        i = state.followers.get(before)
        if i is None or state.tasks[i].phase is not Phase.PENDING or state.tasks[i].remaining != 1:
            return
        yield Attempt.trusted(
            task_id=state.specs[i].id,
            agent_id=agent_id,
            attempt=state.tasks[i].attempt + 1,
            host_id=state.agents[agent_id].host_id or "",
            after=state.specs[before].id,
        )
        before = i


def riders(state: RunState, i: int) -> Iterator[int]:
    """The tasks that ride behind this one, in order."""
    follower = state.followers.get(i)
    while follower is not None and state.tasks[follower].riding:
        yield follower
        follower = state.followers.get(follower)
