"""Definition to plan, cached by content."""

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import Any, Final

import orjson

from engine.contracts.definition import TaskDefinition, WorkflowDefinition
from engine.contracts.plan import Plan, Problem
from planner.chains import fused_chains
from planner.draft import Draft, draft
from planner.estimates import estimated_resources
from planner.optimizations import optimizations
from planner.problems import invalid_definition
from planner.risks import warnings
from planner.schedule import MICROSECONDS

PLANS_MAX: Final = 256
"""Plans that a cache holds."""

CACHED_TASKS_MAX: Final = 20_000
"""Tasks of all plans in a cache together: a plan's size grows with them, and the garbage collector visits each."""


def content_hash(definition: dict[str, Any]) -> str:
    """SHA-256, hexadecimal, of a definition's canonical JSON (keys sorted, no blanks).

    Take the dump of a validated definition (`model_dump(mode="json")`): with its defaults filled in, two ways to
    write the same thing have one hash. Raises InvalidDefinitionError for what JSON cannot hold.
    """
    try:
        canonical = orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        problem = Problem(code="INVALID_VALUE", location="", message=f"cannot be written as JSON: {error}")
        raise invalid_definition([problem], 1) from error
    return hashlib.sha256(canonical).hexdigest()


class Planner:
    """Plans definitions; safe to share between threads."""

    def __init__(self, plans_max: int = PLANS_MAX, tasks_max: int = CACHED_TASKS_MAX) -> None:
        self._plans_max = plans_max
        self._tasks_max = tasks_max
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._tasks = 0
        self._lock = Lock()

    def plan(self, definition: WorkflowDefinition) -> Plan:
        """The plan of a definition that `planner.parse.parse_definition` made."""
        key = content_hash(definition.model_dump(mode="json"))
        with self._lock:
            cached = self._plans.get(key)
            if cached is not None:
                self._plans.move_to_end(key)
                return cached
        plan = make_plan(definition, key)
        with self._lock:
            self._remember(key, plan)
        return plan

    def _remember(self, key: str, plan: Plan) -> None:
        if key in self._plans:  # Another thread was faster.
            return
        self._plans[key] = plan
        self._tasks += len(plan.tasks)
        while len(self._plans) > self._plans_max or self._tasks > self._tasks_max:
            _, oldest = self._plans.popitem(last=False)
            self._tasks -= len(oldest.tasks)


def make_plan(definition: WorkflowDefinition, plan_hash: str) -> Plan:
    """The plan, without any cache."""
    drafted = draft(definition)
    fields = {
        "plan_hash": plan_hash,
        "tasks": _plan_tasks(drafted),
        "waves": tuple(map(tuple, drafted.graph.waves)),
        "critical_path": tuple(drafted.schedule.critical_path),
        "critical_path_seconds": drafted.schedule.length_us / MICROSECONDS,
        "parallelism": tuple(map(len, drafted.graph.waves)),
        "parallelism_max": drafted.most_at_once(list(range(len(drafted.tasks)))),
        "estimated_resources": estimated_resources(drafted),
        "chains": fused_chains(drafted),
        "warnings": warnings(drafted),
        "optimizations": optimizations(drafted),
    }
    return Plan.model_validate(fields)


def _plan_tasks(drafted: Draft) -> tuple[dict[str, Any], ...]:
    """As fields: thousands of models made one by one cost several times what validating all of them at once does."""
    schedule = drafted.schedule
    return tuple(
        {
            "id": task.id,
            "role": task.agent,
            "depends_on": drafted.graph.dependencies[index],
            "wave": drafted.wave_of[index],
            "estimate_seconds": drafted.estimates_us[index] / MICROSECONDS,
            "earliest_start_seconds": schedule.starts_us[index] / MICROSECONDS,
            "slack_seconds": schedule.slacks_us[index] / MICROSECONDS,
            "on_critical_path": schedule.slacks_us[index] == 0,
            "dynamic": _dynamic(task),
        }
        for index, task in enumerate(drafted.tasks)
    )


def _dynamic(task: TaskDefinition) -> tuple[str, ...]:
    if task.when is None and task.for_each is None and not task.triggers and not task.reuse:
        return ()  # Nearly all.
    written = {"when": task.when, "for_each": task.for_each, "triggers": task.triggers, "reuse": task.reuse}
    return tuple(field for field, value in written.items() if value)
