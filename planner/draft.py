"""What the parts of the planner share about one definition: its graph, schedule, roles and estimates."""

from dataclasses import dataclass
from functools import cached_property

from engine.contracts.definition import TaskDefinition, WorkflowDefinition
from engine.errors import InvalidDefinitionError
from planner.graph import TaskGraph, build_graph
from planner.schedule import Schedule, estimate_us, most_at_once, schedule
from planner.simulate import duration_us


@dataclass(frozen=True)
class Draft:
    """A definition being planned. Lists are in topological order; an index means the same in all of them."""

    definition: WorkflowDefinition
    graph: TaskGraph
    tasks: list[TaskDefinition]
    estimates_us: list[int]
    schedule: Schedule
    wave_of: list[int]

    @cached_property
    def roles(self) -> list[str]:
        return [task.agent for task in self.tasks]

    @cached_property
    def counts(self) -> dict[str, int]:
        return {role: agent.count for role, agent in sorted(self.definition.agents.items())}

    @cached_property
    def alone(self) -> frozenset[int]:
        return frozenset(index for index, task in enumerate(self.tasks) if task.parallel is False)

    @cached_property
    def tasks_of_role(self) -> dict[str, list[int]]:
        by_role: dict[str, list[int]] = {role: [] for role in self.counts}
        for index, role in enumerate(self.roles):
            by_role[role].append(index)
        return by_role

    @cached_property
    def duration_us(self) -> int:
        """With the instances that the definition asks for."""
        return self.duration_with(self.counts, self.alone)

    def duration_with(self, counts: dict[str, int], alone: frozenset[int]) -> int:
        return duration_us(self.graph, self.estimates_us, self.schedule.tails_us, self.roles, counts, alone)

    def most_at_once(self, tasks: list[int]) -> int:
        return most_at_once(tasks, self.wave_of, self.schedule.starts_us, self.estimates_us)

    def location(self, index: int) -> str:
        """Where the task stands in the definition."""
        return f"tasks[{self.graph.positions[index]}]"


def draft(definition: WorkflowDefinition) -> Draft:
    """Raises InvalidDefinitionError for what `planner.parse` never lets through."""
    position_of = {task.id: position for position, task in enumerate(definition.tasks)}
    for task in definition.tasks:
        if task.agent not in definition.agents:
            raise InvalidDefinitionError(f"the task {task.id} names the unknown role {task.agent}")
    try:
        dependencies = [[position_of[name] for name in task.depends_on] for task in definition.tasks]
    except KeyError as error:
        raise InvalidDefinitionError(f"a task depends on {error}, which does not exist") from error
    graph = build_graph(dependencies)
    tasks = [definition.tasks[position] for position in graph.positions]
    estimates_us = [estimate_us(task) for task in tasks]
    wave_of = [0] * len(tasks)
    for number, wave in enumerate(graph.waves):
        for index in wave:
            wave_of[index] = number
    return Draft(definition, graph, tasks, estimates_us, schedule(graph, estimates_us), wave_of)
