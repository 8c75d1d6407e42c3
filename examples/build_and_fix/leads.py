"""Levels 2 and 1: what a foreman and an architect make of failures. Rules, no model: what they decide follows from the
error, and from what was tried before."""

from typing import Any

from examples.build_and_fix import workers
from orchestration_agent import Task, TaskFailed

Answer = dict[str, Any]


def foreman(task: Task) -> Answer:
    """Has things repaired; and would have the release used, which its people may not."""
    told = _told(task)
    match told["error"]["code"]:
        case "AGENT_LOST":
            return {"decision": "retry", "reason": "its processes were killed, which says nothing of the task"}
        case "LINT":
            return {"decision": "reassign", "to": "fixer", "reason": "ruff repairs that itself"}
        case "TESTS" if told["task_id"] == "test-money" and "refused" not in task.context:
            return {
                "decision": "reassign",
                "to": "fixer",
                "input": {"resources": ["release"]},
                "reason": "roll it back",
            }
        case "TESTS":
            return {"decision": "reassign", "to": "fixer", "reason": "perhaps a small mistake"}
        case "VERSION_TAKEN":
            return {"decision": "retry", "input": {"version": "1.0.1"}, "reason": "the next version"}
    return {"decision": "escalate", "reason": f"{told['error']['code']} is above a foreman"}


def architect(task: Task) -> Answer:
    """Rolls back what cannot be mended, and does without what is not needed."""
    if task.action != "escalation":
        return workers.restore(task)
    told = _told(task)
    match told["error"]["code"]:
        case "AGENT_LOST":
            return {"decision": "retry", "reason": "once more"}
        case "CANNOT_MEND":
            changed = {"resources": ["worktree", "release"]}
            return {"decision": "reassign", "to": "architect", "input": changed, "reason": "back to what was released"}
        case "NO_KEY":
            return {"decision": "resolve", "result": {"signed": False}, "reason": "for use in this house only"}
    return {"decision": "escalate"}


def _told(task: Task) -> dict[str, Any]:
    if task.action != "escalation":
        raise TaskFailed(f"a lead knows no action {task.action!r}", code="UNKNOWN_ACTION")
    told: dict[str, Any] = task.context["escalation"]
    return told
