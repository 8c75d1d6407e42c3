"""Warnings: what is allowed and probably not meant, or will hurt when something fails."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from engine.contracts.definition import Pattern
from engine.contracts.limits import EXECUTION_TIMEOUT_DEFAULT_SECONDS, TASKS_DYNAMIC_MAX
from engine.contracts.plan import Problem
from planner.draft import Draft
from planner.schedule import MICROSECONDS

WARNINGS_PER_CODE_MAX: Final = 100

SINGLE_POINT_BEHIND_MIN: Final = 3
"""Tasks that must wait behind a task before it counts as a single point of failure."""

SINGLE_INSTANCE_PARALLEL_MIN: Final = 3
"""Tasks ready together before the only instance of their role is worth a warning."""


def warnings(draft: Draft) -> tuple[Problem, ...]:
    ancestors = _ancestors(draft)
    rules: tuple[Callable[[], Iterable[Problem]], ...] = (
        lambda: _unused_roles(draft),
        lambda: _isolated_tasks(draft),
        lambda: _repeated_dependencies(draft),
        lambda: _redundant_dependencies(draft, ancestors),
        lambda: _short_timeouts(draft),
        lambda: _single_points(draft, ancestors),
        lambda: _single_instances(draft),
        lambda: _long_duration(draft),
        lambda: _unknown_sizes(draft),
        lambda: _endless_waits(draft),
        lambda: _triggers_in_graph(draft),
    )
    return tuple(problem for rule in rules for problem in _bounded(iter(rule())))


def _bounded(found: Iterator[Problem]) -> Iterator[Problem]:
    first: Problem | None = None
    for problem in islice(found, WARNINGS_PER_CODE_MAX):
        first = first or problem
        yield problem
    more = sum(1 for _ in found)
    if first is not None and more:
        yield Problem(code=first.code, location="", message=f"... and {more} more of this kind")


def _ancestors(draft: Draft) -> list[int]:
    """All tasks before each task, as bit sets: integers with a bit for each index.

    Their cost is edges times tasks over 64 machine words, which stays small at the limits of a definition.
    """
    sets: list[int] = []
    for befores in draft.graph.dependencies:
        everything = 0
        for before in befores:
            everything |= sets[before] | (1 << before)
        sets.append(everything)
    return sets


def _unused_roles(draft: Draft) -> Iterator[Problem]:
    definition = draft.definition
    if definition.orchestration_pattern is Pattern.CUSTOM:
        return  # the registered program says whom it asks
    named = set(_texts(definition.pattern_config))
    named |= {text.rpartition("-")[0] for text in named if text.rpartition("-")[2].isdecimal()}
    for role, tasks in draft.tasks_of_role.items():
        if not tasks and role not in named:
            message = f'no task uses the role "{role}"; its agents would be started for nothing'
            yield Problem(code="UNUSED_ROLE", location=f"agents.{role}", message=message)


def _texts(value: Any) -> Iterator[str]:
    """All texts in the pattern's settings: roles and agents that it asks for something stand among them."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case list() as items:
                waiting.extend(items)
            case dict() as fields:
                waiting.extend(fields.values())
                waiting.extend(fields)


def _isolated_tasks(draft: Draft) -> Iterator[Problem]:
    if not draft.graph.edge_count:
        return
    for index, task in enumerate(draft.tasks):
        if not draft.graph.dependencies[index] and not draft.graph.dependents[index]:
            message = f'"{task.id}" depends on nothing and nothing depends on it; is a dependency missing?'
            yield Problem(code="ISOLATED_TASK", location=draft.location(index), message=message)


def _repeated_dependencies(draft: Draft) -> Iterator[Problem]:
    for index, task in enumerate(draft.tasks):
        if len(task.depends_on) > len(draft.graph.dependencies[index]):
            for name, times in Counter(task.depends_on).items():
                if times > 1:
                    yield Problem(
                        code="DUPLICATE_DEPENDENCY",
                        location=f"{draft.location(index)}.depends_on",
                        message=f'"{task.id}" names "{name}" {times} times; once is enough',
                    )


def _redundant_dependencies(draft: Draft, ancestors: list[int]) -> Iterator[Problem]:
    for index, befores in enumerate(draft.graph.dependencies):
        if len(befores) < 2:
            continue
        implied = 0
        for before in befores:
            implied |= ancestors[before]
        for before in befores:
            if implied & (1 << before):
                task, name = draft.tasks[index], draft.tasks[before].id
                yield Problem(
                    code="REDUNDANT_DEPENDENCY",
                    location=f"{draft.location(index)}.depends_on[{task.depends_on.index(name)}]",
                    message=f'"{task.id}" waits for "{name}" through another dependency already; '
                    "keep it only if the result is needed as input",
                )


def _short_timeouts(draft: Draft) -> Iterator[Problem]:
    for index, task in enumerate(draft.tasks):
        if task.estimated_seconds is not None and task.timeout_seconds < task.estimated_seconds:
            yield Problem(
                code="TIMEOUT_BELOW_ESTIMATE",
                location=f"{draft.location(index)}.timeout_seconds",
                message=f'"{task.id}" is given {task.timeout_seconds} s but estimated at '
                f"{task.estimated_seconds:g} s; raise timeout_seconds",
            )


def _single_points(draft: Draft, ancestors: list[int]) -> Iterator[Problem]:
    """Tasks that all others stand before or behind, in a graph that is more than a chain."""
    if all(len(wave) == 1 for wave in draft.graph.waves):
        return
    for index, before, behind in _passed_by_all(draft, ancestors):
        if behind < SINGLE_POINT_BEHIND_MIN:
            return
        task = draft.tasks[index]
        which = f"all {behind} tasks behind it" if before else f"all {behind} other tasks"
        yield Problem(
            code="SINGLE_POINT_OF_FAILURE",
            location=draft.location(index),
            message=f'{which} wait for "{task.id}"; if it fails for good, none of them can run: '
            "give it retries and a generous timeout",
        )


def _passed_by_all(draft: Draft, ancestors: list[int]) -> Iterator[tuple[int, int, int]]:
    """(task, how many stand before it, how many behind) of tasks that can be compared with every other.

    In a topological order such a task has exactly its ancestors before it, and is an ancestor of all after it.
    """
    total = len(draft.tasks)
    common = (1 << total) - 1
    behind_all = [0] * total
    for index in range(total - 1, -1, -1):
        behind_all[index] = common  # Ancestors that every later task has in common.
        common &= ancestors[index]
    for index in range(total):
        if ancestors[index] == (1 << index) - 1 and behind_all[index] & (1 << index):
            yield index, index, total - index - 1


def _single_instances(draft: Draft) -> Iterator[Problem]:
    for role, tasks in draft.tasks_of_role.items():
        if draft.counts[role] != 1 or len(tasks) < SINGLE_INSTANCE_PARALLEL_MIN:
            continue
        together = draft.most_at_once(tasks)
        if together >= SINGLE_INSTANCE_PARALLEL_MIN:
            yield Problem(
                code="SINGLE_INSTANCE",
                location=f"agents.{role}.count",
                message=f'up to {together} tasks of the role "{role}" could run at once, on its one instance; '
                "without another one they queue, and stop when it is lost",
            )


def _long_duration(draft: Draft) -> Iterator[Problem]:
    seconds = draft.duration_us // MICROSECONDS
    if seconds > EXECUTION_TIMEOUT_DEFAULT_SECONDS:
        yield Problem(
            code="DURATION_ABOVE_TIMEOUT",
            location="",
            message=f"the estimate of {seconds} s is above an execution's default timeout of "
            f"{EXECUTION_TIMEOUT_DEFAULT_SECONDS} s; give execution_options.timeout",
        )


def _unknown_sizes(draft: Draft) -> Iterator[Problem]:
    for index, task in enumerate(draft.tasks):
        if task.for_each is not None:
            yield Problem(
                code="UNKNOWN_SIZE",
                location=f"{draft.location(index)}.for_each",
                message=f'"{task.id}" runs once for each element of a list that is not known before; it counts as one '
                f"task in this plan, and as many as {TASKS_DYNAMIC_MAX} may be added to an execution",
            )


def _endless_waits(draft: Draft) -> Iterator[Problem]:
    for index, task in enumerate(draft.tasks):
        if task.triggers and all(trigger.timeout_seconds is None for trigger in task.triggers):
            yield Problem(
                code="ENDLESS_WAIT",
                location=f"{draft.location(index)}.triggers",
                message=f'"{task.id}" waits for its event as long as the execution may last; '
                "give its trigger timeout_seconds",
            )


def _triggers_in_graph(draft: Draft) -> Iterator[Problem]:
    if draft.definition.coordination.type == "graph_based" and any(task.triggers for task in draft.tasks):
        yield Problem(
            code="TRIGGERS_IN_GRAPH",
            location="coordination.type",
            message="tasks wait for external events although the graph alone is said to set them off; "
            "write hybrid, or remove the triggers",
        )
