"""What the swarm and the network check alike: names of tasks and agents in their settings, shapes that cannot be."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.limits import TASKS_DYNAMIC_MAX
from engine.contracts.topology import TopologyConfig
from planner.patterns.finding import Finding
from planner.problems import Location

UNKNOWN_AGENT: Final = "UNKNOWN_AGENT"
UNKNOWN_TASK: Final = "UNKNOWN_TASK"
NOT_IN_PATTERN: Final = "NOT_IN_PATTERN"
INPUTS_BYTES_MAX: Final = 16 * 1024 * 1024
"""A task's input, once for each agent of its role."""


def agents_of(definition: WorkflowDefinition, roles: Iterable[str]) -> frozenset[str]:
    """The names of all agents of these roles."""
    return frozenset(
        f"{role}-{n}"
        for role in set(roles)
        if role in definition.agents
        for n in range(1, definition.agents[role].count + 1)
    )


def settings_location(group: str, task_id: str, field: str, own: Mapping[str, Any]) -> Location:
    """Where this setting of a task stands: among its own, or in what holds for all."""
    return ("pattern_config", group, task_id, field) if field in own else ("pattern_config", field)


def check_tasks_named(definition: WorkflowDefinition, group: str, named: Iterable[str]) -> Iterator[Finding]:
    known = {task.id for task in definition.tasks}
    for name in named:
        if name not in known:
            yield Finding(UNKNOWN_TASK, ("pattern_config", group, name), f"there is no task {name}")


def check_shapes(definition: WorkflowDefinition, what: str) -> Iterator[Finding]:
    """What makes no sense where a task is not one piece of work for one agent."""
    for position, task in enumerate(definition.tasks):
        if task.for_each is not None:
            yield Finding(NOT_IN_PATTERN, ("tasks", position, "for_each"), f"is not taken: a task is {what} here")
        if task.reuse:
            yield Finding(NOT_IN_PATTERN, ("tasks", position, "reuse"), f"is not taken: a task is {what} here")
        if task.parallel is False:
            yield Finding(NOT_IN_PATTERN, ("tasks", position, "parallel"), f"is not taken: a task is {what} here")


def check_room(definition: WorkflowDefinition) -> Iterator[Finding]:
    """Each agent of a task's role gets a task of its own, and an execution may add so many."""
    counts = (definition.agents[task.agent].count for task in definition.tasks if task.agent in definition.agents)
    total = sum(counts)
    if total > TASKS_DYNAMIC_MAX:
        message = (
            f"ask {total} agents, each task all of its role; at most {TASKS_DYNAMIC_MAX} are asked in an execution"
        )
        yield Finding("TOO_MANY_MEMBERS", ("tasks",), message)
    for position, task in enumerate(definition.tasks):
        members = definition.agents[task.agent].count if task.agent in definition.agents else 0
        size_bytes = len(json.dumps(task.input, ensure_ascii=False).encode("utf-8", "replace")) if members > 1 else 0
        if size_bytes * members > INPUTS_BYTES_MAX:
            message = (
                f"has {size_bytes} bytes for each of {members} agents; at most {INPUTS_BYTES_MAX} together are sent"
            )
            yield Finding("TOO_LARGE", ("tasks", position, "input"), message)


def check_links(topology: TopologyConfig, known: frozenset[str], location: Location) -> Iterator[Finding]:
    for name, others in topology.links.items():
        if name not in known:
            yield Finding(UNKNOWN_AGENT, (*location, "links", name), f"there is no agent {name}")
        for number, other in enumerate(others):
            if other not in known:
                yield Finding(UNKNOWN_AGENT, (*location, "links", name, number), f"there is no agent {other}")
