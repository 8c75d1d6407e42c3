"""Checks a definition of the saga pattern against its settings: pivots that are there, and what they rule out."""

from collections.abc import Iterable
from typing import Final

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns.saga import SagaPatternConfig
from planner.patterns.finding import Finding

UNKNOWN_TASK: Final = "UNKNOWN_TASK"
DUPLICATE_PIVOT: Final = "DUPLICATE_PIVOT"
COMPENSATION_AFTER_PIVOT: Final = "COMPENSATION_AFTER_PIVOT"


def check(definition: WorkflowDefinition, config: SagaPatternConfig) -> Iterable[Finding]:
    """What is wrong with this definition under these settings."""
    tasks = {task.id: task for task in definition.tasks}
    certain: set[str] = set()
    for number, name in enumerate(config.pivots):
        location = ("pattern_config", "pivots", number)
        if name not in tasks:
            yield Finding(UNKNOWN_TASK, location, f"there is no task {name}")
        elif name in config.pivots[:number]:
            yield Finding(DUPLICATE_PIVOT, location, f"{name} stands here twice")
        elif tasks[name].when is None:
            certain.add(name)  # a condition may skip it, and then there is a way back
    behind = _behind(definition, certain)
    for position, task in enumerate(definition.tasks):
        if task.compensation_action is not None and task.id in behind:
            where = ("tasks", position, "compensation_action")
            yield Finding(COMPENSATION_AFTER_PIVOT, where, "would never run: a pivot is completed before this task")


def _behind(definition: WorkflowDefinition, pivots: set[str]) -> set[str]:
    """Tasks that depend on a pivot, over any number of others."""
    dependents: dict[str, list[str]] = {}
    for task in definition.tasks:
        for name in task.depends_on:
            dependents.setdefault(name, []).append(task.id)
    found: set[str] = set()
    front = sorted(pivots)
    while front:
        for name in dependents.get(front.pop(), ()):
            if name not in found:
                found.add(name)
                front.append(name)
    return found
