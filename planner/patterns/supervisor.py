"""Checks a definition of the supervisor pattern against its settings: that whoever is named is there."""

from collections.abc import Iterable, Iterator
from typing import Final

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns.supervisor import Review, SupervisorConfig
from planner.patterns.finding import Finding
from planner.patterns.peers import UNKNOWN_AGENT, UNKNOWN_TASK, agents_of, check_tasks_named

UNKNOWN_ROLE: Final = "UNKNOWN_ROLE"


def check(definition: WorkflowDefinition, config: SupervisorConfig) -> Iterable[Finding]:
    """What is wrong with this definition under these settings."""
    yield from check_tasks_named(definition, "wanted", config.wanted)
    if config.capabilities:
        agents = agents_of(definition, definition.agents)
        for name in config.capabilities:
            if name not in agents:
                message = f"there is no agent {name}; agents are named as in worker-1"
                yield Finding(UNKNOWN_AGENT, ("pattern_config", "capabilities", name), message)
    if config.review is not None:
        yield from _check_review(definition, config.review)


def _check_review(definition: WorkflowDefinition, review: Review) -> Iterator[Finding]:
    if review.agent not in definition.agents:
        message = f"the definition has no role {review.agent}"
        yield Finding(UNKNOWN_ROLE, ("pattern_config", "review", "agent"), message)
    roles = {task.id: task.agent for task in definition.tasks}
    for number, name in enumerate(review.tasks or ()):
        location = ("pattern_config", "review", "tasks", number)
        if name not in roles:
            yield Finding(UNKNOWN_TASK, location, f"there is no task {name}")
        elif roles[name] == review.agent:
            message = f"{name} is the supervising role's own task, which nobody reviews"
            yield Finding("NOT_REVIEWED", location, message)
