"""Checks a definition of the swarm pattern against its settings: that whoever is named is there."""

from collections.abc import Iterable, Iterator

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns.swarm import SwarmConfig
from planner.patterns.finding import Finding
from planner.patterns.peers import (
    UNKNOWN_AGENT,
    agents_of,
    check_links,
    check_room,
    check_shapes,
    check_tasks_named,
    settings_location,
)


def check(definition: WorkflowDefinition, config: SwarmConfig) -> Iterable[Finding]:
    """What is wrong with this definition under these settings."""
    yield from check_tasks_named(definition, "questions", config.questions)
    yield from check_shapes(definition, "a question for all agents of a role")
    yield from check_room(definition)
    agents = agents_of(definition, [task.agent for task in definition.tasks])
    yield from _check_weights(config.voting.weights, agents, ("pattern_config", "voting"))
    yield from check_links(config.topology, agents, ("pattern_config", "topology"))
    for task in definition.tasks:
        own = config.questions.get(task.id, {})
        question, members = config.question(task.id) if own else config, agents_of(definition, [task.agent])
        if "voting" in own:
            location = settings_location("questions", task.id, "voting", own)
            yield from _check_weights(question.voting.weights, members, location)
        if "topology" in own:
            location = settings_location("questions", task.id, "topology", own)
            yield from check_links(question.topology, members, location)


def _check_weights(weights: Iterable[str], known: frozenset[str], location: tuple[str | int, ...]) -> Iterator[Finding]:
    for name in weights:
        if name not in known:
            message = f"there is no agent {name} to have a weight; agents are named as in worker-1"
            yield Finding(UNKNOWN_AGENT, (*location, "weights", name), message)
