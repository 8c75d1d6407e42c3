"""A small hierarchy, and agents that answer as the execution's input says."""

from typing import Any

from orchestration_agent.synthetic import run as synthetic
from orchestration_agent.task import Task
from tests.integration.engine.bench import definition

TEAMS: dict[str, Any] = {
    "board": {"lead": "director", "members": ["crew"]},
    "crew": {"lead": "chief", "members": ["worker"]},
}
AGENTS = {role: {"type": "synthetic", "count": 1} for role in ("director", "chief", "worker")}
NONE = {"max_attempts": 1}


def hierarchy(*tasks: dict[str, Any], **config: Any) -> dict[str, Any]:
    settings = {"orchestration_pattern": "hierarchical", "pattern_config": {"teams": TEAMS, **config}}
    return {**definition(*tasks), **settings, "agents": AGENTS}


async def play(task: Task) -> Any:
    """Leads answer as the execution's input says of their role; the others are synthetic."""
    if task.action in ("escalation", "delegation"):
        return task.execution_input[task.role]
    if task.execution_input.get("told") == task.task_id:
        return {"input": task.input, "context": task.context, "results": task.results}
    return await synthetic(task)
