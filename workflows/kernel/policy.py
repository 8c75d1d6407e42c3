"""What a coordination pattern decides. Everything else is the kernel's."""

from collections.abc import Iterator, Sequence
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING

from engine.contracts.dynamic import SpawnedBody
from workflows.kernel.state import AgentRun, RunState

if TYPE_CHECKING:
    from workflows.kernel.desk import Desk

PREFETCH_MS = 30
"""Work sent ahead to an agent, so that it need not wait for the next tick between short tasks."""

PREFETCH_TASKS_MAX = 500


def window(state: RunState, agent: AgentRun) -> int:
    """How many attempts may be with this agent: its slots, and about 30 ms of work ahead once its pace is known."""
    pace_ms = state.pace_ms.get(agent.role)
    if pace_ms is None or pace_ms > PREFETCH_MS * agent.speed:
        return agent.slots
    ahead = int(PREFETCH_MS * agent.speed * agent.slots / max(pace_ms, 0.05))
    return agent.slots + min(ahead, PREFETCH_TASKS_MAX)


class Policy:
    """A pattern: pure, deterministic, changes nothing itself but through the desk. This base shares ready tasks out.

    A policy holds no memory of its own from tick to tick: what it remembers is on the board. It may keep what it can
    compute from the definition (`state.launch.pattern_config`, `state.plan`).
    """

    looks_ahead: bool = False
    """Fast tasks may go out before their dependencies are done, to the host that has those."""

    fuses_chains: bool = False
    """Chains that the planner found go out as one."""

    coordinates: bool = False
    """It judges ends and is asked each tick; static graphs without a say of the pattern pay nothing for it."""

    def judges(self, state: RunState, i: int) -> bool:
        """Whether the pattern wants to judge the end of this task. By default of those that it asked for."""
        return state.specs[i].asked

    def judges_failure(self, state: RunState, i: int) -> bool:
        """The same of a failure that would be for good. By default where it judges ends."""
        return self.judges(state, i)

    def refuses_added(self, state: RunState, i: int, bodies: Sequence[SpawnedBody]) -> str | None:  # noqa: ARG002
        """Why the result of task i may not add these tasks: it then fails for good. None: it may."""
        return None

    def react(self, desk: "Desk") -> None:
        """Called in each tick of an open execution once the inbox is read, before failures have their consequences
        and before ready tasks go out. Also while paused: what is decided then starts after the resumption."""

    def next_due_ms(self, state: RunState) -> int | None:  # noqa: ARG002 - for patterns that wait for a time
        """When to be asked again although nothing comes in."""
        return None

    def rolls_back(self, state: RunState) -> bool:  # noqa: ARG002 - for patterns with a point of no return
        """Whether what can be undone is undone now that the execution does not complete."""
        return True

    def undoes_side_by_side(self, state: RunState) -> bool:  # noqa: ARG002
        """Whether independent steps are undone at the same time instead of one after the other."""
        return False

    def doubts_failures(self, state: RunState) -> bool:  # noqa: ARG002
        """Whether a step whose agent reported a failure is undone too. By default its word is taken for it."""
        return False

    def assignments(self, state: RunState) -> Iterator[tuple[int, str]]:
        """(task index, agent id) for tasks to start now, most urgent first.

        Between two items the caller may or may not have changed the state; the policy keeps count itself.
        """
        if state.ready_alone:
            yield from _alone(state)
            return
        if any(state.specs[i].alone for i in state.in_flight):
            return
        for role in sorted(state.ready):
            waiting = state.ready[role]
            if waiting:
                yield from self.share_out(state, role, waiting)

    def share_out(self, state: RunState, role: str, waiting: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
        """Tasks that name an agent go to it; the others to the agent with the smallest load."""
        free = waiting
        if state.pinned:
            yield from _to_named_agents(state, waiting)
            free = [item for item in waiting if state.specs[item[1]].agent is None]
        yield from least_loaded(state, role, free)


def least_loaded(state: RunState, role: str, waiting: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    """In order of urgency, each to the agent with the smallest load for its slots and its speed."""
    if not waiting:
        return
    agents = state.agents_of(role)
    heap = [
        (agent.share(agent.load), agent.load, n, window(state, agent))
        for n, agent in enumerate(agents)
        if agent.takes_work
    ]
    heap = [entry for entry in heap if entry[1] < entry[3]]
    heapify(heap)
    for _, i in tuple(waiting[: sum(entry[3] - entry[1] for entry in heap)]):
        _, load, n, limit = heap[0]
        yield i, agents[n].agent_id
        load += 1
        # A full agent sinks to the bottom; when all are full the slice above has ended.
        heapreplace(heap, (agents[n].share(load) if load < limit else float("inf"), load, n, limit))


def _to_named_agents(state: RunState, waiting: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    loads: dict[str, int] = {}
    for _, i in tuple(waiting):
        agent = state.agents.get(state.specs[i].agent or "")
        if agent is None or not agent.takes_work:
            continue
        load = loads.get(agent.agent_id, agent.load)
        if load < window(state, agent):
            loads[agent.agent_id] = load + 1
            yield i, agent.agent_id


def _alone(state: RunState) -> Iterator[tuple[int, str]]:
    """A task that must run alone waits until nothing runs, and nothing new starts before it."""
    if state.in_flight:
        return
    for _, i in state.ready_alone:
        spec = state.specs[i]
        for agent_id in sorted(state.agents):
            agent = state.agents[agent_id]
            if agent.role == spec.role and agent.takes_work and spec.agent in (None, agent_id):
                yield i, agent_id
                return
