"""Which agent gets a ready task: by turns, by weight, within a limit; tasks that one agent is to do, or any other.

Pure, and in the order of urgency. What agents did before stands in the state (`AgentRun.turn`, `AgentRun.pace_ms`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heapreplace

from workflows.kernel.policy import window
from workflows.kernel.state import AgentRun, RunState

Waiting = Sequence[tuple[int, int]]
"""(slack, task index) of ready tasks of a role, most urgent first."""

Room = Callable[[AgentRun], int]
"""How many attempts may be with an agent."""

PACE_MS_MIN = 0.05
"""Nothing is faster than the clock can tell."""

Share = Iterator[tuple[int, str]]


def agent_key(task_id: str) -> str:
    """Where on the board stands who is to do the task next."""
    return f"{task_id}/agent"


def avoid_key(task_id: str) -> str:
    """Where on the board stands who is not to do it."""
    return f"{task_id}/avoid"


def room_within(state: RunState, limit: int | None) -> Room:
    if limit is None:
        return lambda agent: window(state, agent)
    return lambda agent: min(window(state, agent), limit)


class Sharing:
    """One role's agents with room, and what they are given in this tick."""

    def __init__(self, state: RunState, role: str, room: Room) -> None:
        self.state = state
        self.agents = [agent for agent in state.agents_of(role) if agent.takes_work]
        self.loads = {agent.agent_id: agent.load for agent in self.agents}
        self.limits = {agent.agent_id: room(agent) for agent in self.agents}

    def has_room(self, agent_id: str) -> bool:
        return agent_id in self.loads and self.loads[agent_id] < self.limits[agent_id]

    def give(self, agent_id: str) -> None:
        self.loads[agent_id] += 1

    @property
    def places(self) -> int:
        return sum(max(self.limits[name] - load, 0) for name, load in self.loads.items())

    def directed(self, waiting: Waiting) -> Share:
        """Tasks that one agent is to do. One whose agent is not there waits for it, but where it is only preferred."""
        for _, i in tuple(waiting):
            spec = self.state.specs[i]
            agent_id = spec.agent or self.state.board.get(agent_key(spec.id))
            if agent_id is not None and self.has_room(agent_id):
                self.give(agent_id)
                yield i, agent_id

    def elsewhere(self, waiting: Waiting) -> Share:
        """Tasks that some agents are not to do: to the least loaded of the others."""
        for _, i in tuple(waiting):
            avoided = self.state.board.get(avoid_key(self.state.specs[i].id), ())
            others = [a for a in self.agents if a.agent_id not in avoided and self.has_room(a.agent_id)]
            if others:
                chosen = min(others, key=lambda a: a.share(self.loads[a.agent_id]))
                self.give(chosen.agent_id)
                yield i, chosen.agent_id

    def least_loaded(self, waiting: Waiting) -> Share:
        yield from self._by(waiting, AgentRun.share)

    def by_turns(self, waiting: Waiting) -> Share:
        """To the agent whose last turn is longest ago."""
        heap = [(agent.turn, n, agent.agent_id) for n, agent in enumerate(self.agents) if self.has_room(agent.agent_id)]
        heapify(heap)
        turn = self.state.turns
        for _, i in tuple(waiting[: self.places]):
            turn += 1
            _, n, agent_id = heap[0]
            yield i, agent_id
            self.give(agent_id)
            if self.has_room(agent_id):
                heapreplace(heap, (turn, n, agent_id))
            else:
                heappop(heap)

    def by_speed(self, waiting: Waiting) -> Share:
        """An agent that takes half the time gets twice as much. One that is new is taken for average."""
        known = [agent.pace_ms for agent in self.agents if agent.pace_ms is not None]
        average = sum(known) / len(known) if known else 1.0

        def share(agent: AgentRun, load: int) -> float:
            pace_ms = average if agent.pace_ms is None else agent.pace_ms
            return (load + 1) * max(pace_ms, PACE_MS_MIN) / agent.slots

        yield from self._by(waiting, share)

    def by_capability(
        self, waiting: Waiting, wanted: Mapping[str, Sequence[str]], capabilities: Mapping[str, Sequence[str]]
    ) -> Share:
        """An agent that has all that is wanted counts as much as two that have half of it."""
        ranked: dict[tuple[str, ...], _Ranking] = {}
        for _, i in tuple(waiting[: self.places]):
            wishes = tuple(wanted.get(_name(self.state, i), ()))
            ranking = ranked.get(wishes)
            if ranking is None:
                ranking = ranked[wishes] = _Ranking(self, _by_wishes(wishes, capabilities))
            agent = ranking.first()
            if agent is None:
                return
            self.give(agent.agent_id)
            yield i, agent.agent_id

    def _by(self, waiting: Waiting, share: "ShareOf") -> Share:
        ranking = _Ranking(self, share)
        for _, i in tuple(waiting[: self.places]):
            agent = ranking.first()
            if agent is None:
                return
            self.give(agent.agent_id)
            yield i, agent.agent_id


ShareOf = Callable[[AgentRun, int], float]
"""How much an agent has already, or would have with one task more; the least is chosen."""


class _Ranking:
    """Agents by their shares. Where others give tasks to the same agents, an entry is put right when it comes up."""

    def __init__(self, sharing: Sharing, share: ShareOf) -> None:
        self._sharing = sharing
        self._share = share
        loads = sharing.loads
        self._heap = [
            (share(agent, loads[agent.agent_id]), loads[agent.agent_id], n) for n, agent in enumerate(sharing.agents)
        ]
        heapify(self._heap)

    def first(self) -> AgentRun | None:
        """The agent whose share is the smallest of those that have room."""
        while self._heap:
            _, load, n = self._heap[0]
            agent = self._sharing.agents[n]
            present = self._sharing.loads[agent.agent_id]
            if not self._sharing.has_room(agent.agent_id):
                heappop(self._heap)
            elif present != load:
                heapreplace(self._heap, (self._share(agent, present), present, n))
            else:
                return agent
        return None


def _by_wishes(wishes: Sequence[str], capabilities: Mapping[str, Sequence[str]]) -> ShareOf:
    def share(agent: AgentRun, load: int) -> float:
        weight = 1 + sum(wish in capabilities.get(agent.agent_id, ()) for wish in wishes)
        return (load + 1) / (weight * agent.slots)

    return share


def _name(state: RunState, i: int) -> str:
    """Of an element, the name of the task that it is an element of."""
    return state.specs[state.parent.get(i, i)].id
