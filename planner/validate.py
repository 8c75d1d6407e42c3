"""Checks what no single field shows: sizes, roles, dependencies, cycles.

Works on what the client wrote, before or without the models, and skips what it cannot read: a wrong field in one
task must not hide a cycle among the others.
"""

from collections.abc import Sequence
from typing import Any, Final

from engine.contracts.limits import AGENTS_MAX, NAME_LENGTH_MAX, TASKS_MAX
from engine.contracts.resources import parse_cpu_cores, parse_memory_bytes
from planner.graph import Cycle, behind, find_cycles, is_acyclic
from planner.problems import Location, ProblemList, Suggester, is_name, quoted
from planner.values import check_value

DEPENDENCIES_MAX: Final = 200_000
"""Dependencies of all tasks together: the time of every graph algorithm grows with them."""

CHOICES_MAX: Final = 100
"""Entries of a list that takes documented values only."""

MEMBERS_SHOWN_MAX: Final = 20
"""Tasks that a message names one by one."""


def bound(data: dict[str, Any], problems: ProblemList) -> dict[str, Any]:
    """`data` without what is too large to be checked in bounded time, which is reported.

    Also without a `timeout` beside `timeout_seconds`: the model refuses both before it looks at any other field.
    """
    bounded = dict(data)
    coordination = data.get("coordination")
    if isinstance(coordination, dict):
        bounded["coordination"] = _bound_choices(coordination, problems)
    tasks = data.get("tasks")
    if isinstance(tasks, list):
        bounded["tasks"] = _bound_tasks(tasks, problems)
    agents = data.get("agents")
    if isinstance(agents, dict) and len(agents) > AGENTS_MAX:
        problems.add("TOO_MANY_AGENTS", ("agents",), f"has {len(agents)} roles; at most {AGENTS_MAX} are taken")
        bounded["agents"] = dict(list(agents.items())[:AGENTS_MAX])
    return bounded


def _bound_choices(coordination: dict[str, Any], problems: ProblemList) -> dict[str, Any]:
    bounded = dict(coordination)
    for field in ("event_driven", "graph_based"):
        listed = coordination.get(field)
        if isinstance(listed, list) and len(listed) > CHOICES_MAX:
            message = f"has {len(listed)} entries; at most {CHOICES_MAX} are taken"
            problems.add("TOO_LONG", ("coordination", field), message)
            bounded[field] = listed[:CHOICES_MAX]
    return bounded


def _bound_tasks(tasks: list[Any], problems: ProblemList) -> list[Any]:
    if len(tasks) > TASKS_MAX:
        message = f"has {len(tasks)} tasks; at most {TASKS_MAX} are taken: split the workflow"
        problems.add("TOO_MANY_TASKS", ("tasks",), message)
    bounded = tasks[:TASKS_MAX]
    left = DEPENDENCIES_MAX
    total = 0
    for index, task in enumerate(bounded):
        if not isinstance(task, dict):
            continue
        if "timeout" in task and "timeout_seconds" in task:
            message = "give timeout or timeout_seconds, not both: they mean the same"
            problems.add("CONFLICTING_FIELDS", ("tasks", index, "timeout"), message)
            task = bounded[index] = {key: value for key, value in task.items() if key != "timeout"}
        depends_on = task.get("depends_on")
        if isinstance(depends_on, list):
            total += len(depends_on)
            if len(depends_on) > left:
                bounded[index] = {**task, "depends_on": depends_on[:left]}
            left = max(0, left - len(depends_on))
    if total > DEPENDENCIES_MAX:
        message = f"have {total} dependencies together; at most {DEPENDENCIES_MAX} are taken"
        problems.add("TOO_MANY_DEPENDENCIES", ("tasks",), message)
    return bounded


def check_agents(data: dict[str, Any], problems: ProblemList) -> None:
    """Resources that do not parse, each on its own, and the sum of all instances."""
    agents = data.get("agents")
    if not isinstance(agents, dict):
        return
    instances = 0
    for role, agent in agents.items():
        if not isinstance(agent, dict):
            continue
        count = agent.get("count", 1)
        instances += count if isinstance(count, int) and 0 < count <= AGENTS_MAX else 0
        resources = agent.get("resources")
        if not isinstance(resources, dict):
            continue
        for field, parse in (("cpu", parse_cpu_cores), ("memory", parse_memory_bytes)):
            written = resources.get(field)
            if isinstance(written, str):
                try:
                    parse(written[:100])
                except ValueError as error:
                    problems.add("INVALID_RESOURCES", ("agents", str(role), "resources", field), str(error))
    if instances > AGENTS_MAX:
        message = f"ask for {instances} instances together; at most {AGENTS_MAX} are given"
        problems.add("TOO_MANY_AGENTS", ("agents",), message)


def check_values(data: dict[str, Any], problems: ProblemList) -> bool:
    """The free-form parts. Whether `pattern_config` is plain JSON, so that its model may look at it."""
    before = problems.count
    if data.get("pattern_config"):
        check_value(data["pattern_config"], ("pattern_config",), problems)
    readable = problems.count == before
    tasks = data.get("tasks")
    for index, task in enumerate(tasks if isinstance(tasks, list) else ()):
        if isinstance(task, dict) and task.get("input"):
            check_value(task["input"], ("tasks", index, "input"), problems)
    return readable


def check_graph(data: dict[str, Any], every_id: Sequence[Any], problems: ProblemList, suggester: Suggester) -> None:
    """Roles, ids, dependencies and cycles. `every_id` holds ids of tasks that were cut off, too."""
    tasks = data.get("tasks")
    if not isinstance(tasks, list):
        return
    positions = _check_ids(tasks, problems)
    known = {identity for identity in every_id if isinstance(identity, str)}
    agents = data.get("agents")
    roles = agents if isinstance(agents, dict) else None
    dependencies: list[list[int]] = []
    for index, task in enumerate(tasks):
        befores: list[int] = []
        dependencies.append(befores)
        if not isinstance(task, dict):
            continue
        role = task.get("agent")
        if roles is not None and role.__class__ is str and role not in roles and is_name(role):
            hint = suggester.hint(role, roles) or _listing(roles)
            message = f"the role {quoted(role)} is not among agents{hint}"
            problems.add("UNKNOWN_AGENT_ROLE", ("tasks", index, "agent"), message)
        depends_on = task.get("depends_on")
        if not isinstance(depends_on, list):
            continue
        for number, name in enumerate(depends_on):
            before = positions.get(name) if name.__class__ is str else None
            if before is not None and before != index and name != task.get("id"):
                befores.append(before)
            elif name.__class__ is str:
                _add_dependency_problem(task, name, known, ("tasks", index, "depends_on", number), problems, suggester)
    if not is_acyclic(dependencies):
        _add_cycles(tasks, dependencies, problems)


def _listing(names: dict[str, Any]) -> str:
    shown = [quoted(name) for name in sorted(map(str, names))[:MEMBERS_SHOWN_MAX]]
    return f"; there are {', '.join(shown)}" + (", ..." if len(names) > len(shown) else "") if shown else ""


def _check_ids(tasks: list[Any], problems: ProblemList) -> dict[str, int]:
    """Position by id, the first one's where an id stands twice."""
    positions: dict[str, int] = {}
    for index, task in enumerate(tasks):
        identity = task.get("id") if isinstance(task, dict) else None
        if not isinstance(identity, str):
            continue
        first = positions.setdefault(identity, index)
        if first != index:
            message = f"the id {quoted(identity)} stands at tasks[{first}].id already; each task needs its own"
            problems.add("DUPLICATE_TASK_ID", ("tasks", index, "id"), message)
    return positions


def _add_dependency_problem(
    task: dict[str, Any],
    name: str,
    known: set[str],
    location: Location,
    problems: ProblemList,
    suggester: Suggester,
) -> None:
    if name == task.get("id"):
        message = f"the task {quoted(name)} depends on itself; remove this dependency"
        problems.add("SELF_DEPENDENCY", location, message)
    elif name not in known and is_name(name):
        hint = suggester.hint(name, known) or "; add that task or remove this dependency"
        problems.add("UNKNOWN_DEPENDENCY", location, f"there is no task {quoted(name)}{hint}")


def _add_cycles(tasks: list[Any], dependencies: list[list[int]], problems: ProblemList) -> None:
    cycles = find_cycles(dependencies)
    names = [task.get("id") if isinstance(task, dict) else None for task in tasks]
    for cycle in cycles:
        first, second = cycle.path[0], cycle.path[1]
        number = tasks[first]["depends_on"].index(names[second])
        problems.add("CYCLE", ("tasks", first, "depends_on", number), _cycle_message(cycle, names))
    waiting = behind(dependencies, cycles)
    if waiting:
        message = f"{_members(waiting, names)} can never start: a cycle stands before"
        problems.add("UNREACHABLE_TASKS", ("tasks", waiting[0]), message)


def _shown(name: object) -> str:
    """A name as it is; anything else that stands in its place in quotes, cut and escaped."""
    return str(name) if is_name(name) and len(str(name)) <= NAME_LENGTH_MAX else quoted(name)


def _members(positions: Sequence[int], names: Sequence[Any]) -> str:
    shown = ", ".join(_shown(names[position]) for position in positions[:MEMBERS_SHOWN_MAX])
    more = len(positions) - MEMBERS_SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def _cycle_message(cycle: Cycle, names: Sequence[Any]) -> str:
    path = [_shown(names[position]) for position in cycle.path]
    if len(path) > MEMBERS_SHOWN_MAX:
        left_out = len(path) - MEMBERS_SHOWN_MAX
        path = [*path[: MEMBERS_SHOWN_MAX - 1], f"({left_out} more)", path[-1]]
    shown = " -> ".join([*path, path[0]])
    message = f"cycle, each depends on the next: {shown}; remove one of these dependencies"
    others = sorted(set(cycle.members) - set(cycle.path))
    if others:
        message += f"; further cycles run through {_members(others, names)}"
    return message
