"""What a member of the swarm does: it looks at a few files, and listens to its neighbours."""

from statistics import fmean
from typing import Any

from examples.estimation.library import estimated_lines, largest_parts
from orchestration_agent import Task, TaskFailed


def estimate(task: Task) -> dict[str, Any]:
    """A vote. Asked again, it gives the same answer: it only reads."""
    member: str = task.input["swarm"]["member"]
    if task.action == "how_many_lines":
        return {"vote": _lines(member, task.context)}
    if task.action == "which_is_largest":
        return {"ranking": largest_parts(member, task.input["swarm"]["options"])}
    raise TaskFailed(f"there is no question {task.action}")


def _lines(member: str, told: dict[str, Any]) -> int:
    """First its own estimate; then the mean of what it and its neighbours said last, without the two extremes: so the
    swarm draws together, and who is far off draws it least."""
    if told["round"] == 1:
        return estimated_lines(member)
    said = sorted([told["own"], *told["seen"].values()])
    return int(round(fmean(said[1:-1]), -2))
