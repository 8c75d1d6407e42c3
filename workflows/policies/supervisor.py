"""Supervisor: each ready task goes to a worker that can do it, critical path first; and an agent may review results."""

from collections.abc import Iterator, Mapping
from typing import Any

from engine.contracts.patterns.supervisor import SupervisorConfig
from workflows.kernel.desk import Desk
from workflows.kernel.policy import Policy
from workflows.kernel.state import RunState
from workflows.policies.reviewing import Reviewing
from workflows.policies.sharing import Share, Sharing, Waiting, agent_key, avoid_key, room_within


class SupervisorPolicy(Policy):
    """Roles are independent of each other; within a role the workers share the load evenly."""

    looks_ahead = True
    fuses_chains = True


class DirectedPolicy(Policy):
    """A supervisor with settings of its own: another strategy, a limit, a review.

    It neither looks ahead nor fuses chains: both give a task to the agent that has its predecessor, whoever's turn it
    is.
    """

    def __init__(self, config: SupervisorConfig) -> None:
        self.config = config
        self.reviewing = None if config.review is None else Reviewing(config.review)
        self.coordinates = self.reviewing is not None

    def judges(self, state: RunState, i: int) -> bool:
        return self.reviewing is not None and self.reviewing.judges(state, i)

    def react(self, desk: Desk) -> None:
        if self.reviewing is not None:
            self.reviewing.react(desk)

    def share_out(self, state: RunState, role: str, waiting: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
        sharing = Sharing(state, role, room_within(state, self.config.max_in_flight))
        directed, elsewhere, free = split_directed(state, waiting)
        yield from sharing.directed(directed)
        yield from sharing.elsewhere(elsewhere)
        yield from self._shared(sharing, free)

    def _shared(self, sharing: Sharing, waiting: Waiting) -> Share:
        config = self.config
        if config.strategy == "round_robin":
            return sharing.by_turns(waiting)
        if config.strategy == "least_loaded":
            return sharing.least_loaded(waiting)
        if config.weight_by == "speed":
            return sharing.by_speed(waiting)
        return sharing.by_capability(waiting, config.wanted, config.capabilities)


def split_directed(state: RunState, waiting: Waiting) -> tuple[Waiting, Waiting, Waiting]:
    """Those that one agent is to do, those that some are not to do, and the others."""
    if not state.pinned and not state.board:
        return (), (), waiting
    directed: list[tuple[int, int]] = []
    elsewhere: list[tuple[int, int]] = []
    free: list[tuple[int, int]] = []
    for item in waiting:
        spec = state.specs[item[1]]
        if spec.agent is not None or agent_key(spec.id) in state.board:
            directed.append(item)
        elif avoid_key(spec.id) in state.board:
            elsewhere.append(item)
        else:
            free.append(item)
    return directed, elsewhere, free


def supervisor_policy(settings: Mapping[str, Any]) -> Policy:
    """The policy for these settings; without any, the one whose static graphs run fastest."""
    config = SupervisorConfig.model_validate(settings)
    if config == SupervisorConfig():
        return SupervisorPolicy()
    return DirectedPolicy(config)
