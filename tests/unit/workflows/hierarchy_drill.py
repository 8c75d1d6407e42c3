"""A drill of the hierarchical pattern: a director above a chief above workers and a helper, unless told otherwise."""

from typing import Any

from engine.contracts.kernel import Attempt, KernelRole, KernelTask
from engine.contracts.patterns.hierarchical import HierarchicalConfig
from tests.unit.workflows.drill import Drill, launch_input
from workflows.policies.hierarchical import HierarchicalPolicy

TEAMS: dict[str, Any] = {
    "board": {"lead": "director", "members": ["crew"]},
    "crew": {"lead": "chief", "members": ["worker", "helper"]},
}
COUNTS = {"director": 1, "chief": 1, "worker": 2, "helper": 1}


def settings_of(**fields: Any) -> HierarchicalConfig:
    return HierarchicalConfig.model_validate({"teams": TEAMS, **fields})


def hierarchy_drill(*tasks: KernelTask, counts: dict[str, int] | None = None, **fields: Any) -> Drill:
    config = settings_of(**{name: fields.pop(name) for name in HierarchicalConfig.model_fields if name in fields})
    slots = fields.pop("slots", 1)
    launch = launch_input(*tasks, pattern="hierarchical", pattern_config=config.model_dump(mode="json"), **fields)
    roles = {role: KernelRole(type="synthetic", count=n) for role, n in (counts or COUNTS).items()}
    launch = launch.model_copy(update={"plan": launch.plan.model_copy(update={"roles": roles})})
    run = Drill(launch, slots=slots, policy=HierarchicalPolicy(config))
    run.tick()
    return run


def fail(run: Drill, attempt: Attempt, code: str = "BROKEN") -> None:
    """For good."""
    run.receive(run.failed(attempt, code, retryable=False))
    run.tick()


def answer(run: Drill, asked_id: str, **document: Any) -> None:
    """A lead answers what it was asked."""
    run.receive(run.completed(run.attempt(asked_id), document))
    run.tick()


def note_of(run: Drill, task_id: str) -> Any:
    """What went with the last attempt of a task."""
    return next(a.note for d in reversed(run.deltas) for a in d.assigned if a.task_id == task_id)


def raised(run: Drill) -> list[tuple[object, object, object]]:
    return [(e["task_id"], e["from_level"], e["to_level"]) for e in run.audit("escalation.raised")]


def decided(run: Drill) -> list[tuple[object, object, object]]:
    return [(e["level"], e.get("decision"), e["outcome"]) for e in run.audit("escalation.decided")]
