"""Supervisor: each ready task goes to the least-loaded worker that can do it, critical path first."""

from collections.abc import Iterator
from heapq import heapify, heapreplace

from workflows.kernel.policy import window
from workflows.kernel.state import RunState


class SupervisorPolicy:
    """Roles are independent of each other; within a role the workers share the load evenly."""

    looks_ahead = True

    def assignments(self, state: RunState) -> Iterator[tuple[int, str]]:
        if state.ready_alone:
            yield from self._alone(state)
            return
        if any(state.specs[i].alone for i in state.in_flight):
            return
        for role in sorted(state.ready):
            waiting = state.ready[role]
            if waiting:
                yield from self._share_out(state, role, waiting)

    def _alone(self, state: RunState) -> Iterator[tuple[int, str]]:
        """A task that must run alone waits until nothing runs, and nothing new starts before it."""
        if state.in_flight:
            return
        for _, i in state.ready_alone:
            role = state.specs[i].role
            for agent_id in sorted(state.agents):
                agent = state.agents[agent_id]
                if agent.role == role and agent.host_id is not None:
                    yield i, agent_id
                    return

    def _share_out(self, state: RunState, role: str, waiting: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
        heap = [
            (agent.load / agent.slots, agent.load, n, agent.agent_id, agent.slots, window(state, agent))
            for n, agent in enumerate(state.agents_of(role))
            if agent.host_id is not None
        ]
        heap = [entry for entry in heap if entry[1] < entry[5]]
        heapify(heap)
        for _, i in tuple(waiting[: sum(entry[5] - entry[1] for entry in heap)]):
            _, load, n, agent_id, slots, limit = heap[0]
            yield i, agent_id
            load += 1
            # A full agent sinks to the bottom; when all are full the slice above has ended.
            share = load / slots if load < limit else float("inf")
            heapreplace(heap, (share, load, n, agent_id, slots, limit))
