"""What a watcher knows of one execution: status and tasks, put together from snapshots and live messages.

Messages may come twice, late, or not at all; a snapshot (`workflow.status`) puts right what was missed. A task never
goes back from an ended state, save by a later attempt.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

ENDED = frozenset({"completed", "failed", "skipped", "cancelled", "compensated"})
ENDED_STATUSES = frozenset({"completed", "failed", "cancelled"})


@dataclass(slots=True)
class TaskRow:
    """One task as it is known."""

    task_id: str
    state: str = "pending"
    agent_id: str = ""
    attempts: int = 0
    progress: float = 0.0
    started: datetime | None = None
    ended: datetime | None = None
    error: str = ""

    def seconds(self, now: datetime) -> float | None:
        if self.started is None:
            return None
        return max(0.0, ((self.ended or now) - self.started).total_seconds())


@dataclass(slots=True)
class Board:
    """One execution as it is known."""

    execution_id: str
    status: str = "planning"
    phase: str = ""
    tasks: dict[str, TaskRow] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    checkpoints: int = 0

    @property
    def closed(self) -> bool:
        return self.status in ENDED_STATUSES

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for row in self.tasks.values():
            counts[row.state] = counts.get(row.state, 0) + 1
        return counts

    def take_snapshot(self, view: dict[str, Any]) -> None:
        """Adopt the answer of `workflow.status`."""
        self.status = view["status"]
        self.phase = view.get("current_phase") or ""
        self.error = view.get("error_details")
        for task_id, state in (view.get("task_states") or {}).items():
            row = self._row(task_id)
            if row.state != state:
                row.state = state
                if state not in ENDED:
                    row.ended = None
        for agent in view.get("agents") or ():
            task_id = agent.get("current_task")
            if task_id in self.tasks:
                self.tasks[task_id].agent_id = agent["agent_id"]

    def take_message(self, message: dict[str, Any]) -> str | None:
        """Adopt a live message; returns a line that tells it, or None when it says nothing new."""
        data = message.get("data") or {}
        at = _moment(data.get("timestamp") or message.get("timestamp"))
        match message.get("type"):
            case "workflow.status_changed":
                return self._status_changed(data)
            case "agent.task_assigned":
                return self._assigned(data, at)
            case "task.progress_update":
                return self._progressed(data)
            case "task.completed":
                return self._completed(data, at)
            case "error.occurred":
                return self._failed(data, at)
            case "checkpoint.created":
                self.checkpoints += 1
                return f"checkpoint {data.get('checkpoint_id', '')}"
            case "hook.executed":
                return f"hook {data.get('hook_name', '')} {data.get('status', '')}"
            case _:
                return None

    def _row(self, task_id: str) -> TaskRow:
        return self.tasks.setdefault(task_id, TaskRow(task_id))

    def _status_changed(self, data: dict[str, Any]) -> str | None:
        new = str(data.get("new_status", ""))
        if new in ("", "planning", self.status):
            return None  # planning is how it begins; later it is old news, overtaken by a snapshot
        previous, self.status = self.status, new
        return f"{previous} -> {new}"

    def _assigned(self, data: dict[str, Any], at: datetime | None) -> str:
        row = self._row(str(data.get("task_id")))
        row.state = "running"
        row.agent_id = str(data.get("agent_id", ""))
        row.attempts += 1
        row.started, row.ended, row.progress = at, None, 0.0
        again = f" (attempt {row.attempts})" if row.attempts > 1 else ""
        return f"{row.task_id} assigned to {row.agent_id}{again}"

    def _progressed(self, data: dict[str, Any]) -> str | None:
        row = self._row(str(data.get("task_id")))
        if row.state in ENDED:
            return None
        row.progress = float(data.get("progress", 0.0))
        return f"{row.task_id} {row.progress:.0%}"

    def _completed(self, data: dict[str, Any], at: datetime | None) -> str:
        row = self._row(str(data.get("task_id")))
        row.state = "failed" if data.get("status") == "failed" else "completed"
        row.agent_id = str(data.get("agent_id") or row.agent_id)
        row.ended, row.progress = at, 1.0
        seconds = row.seconds(at) if at is not None else None
        took = f" in {seconds:.2f} s" if seconds is not None else ""
        return f"{row.task_id} {row.state}{took} by {row.agent_id}"

    def _failed(self, data: dict[str, Any], at: datetime | None) -> str:
        text = f"{data.get('error_type', 'error')}: {data.get('error_message', '')}"
        task_id = data.get("task_id")
        if not task_id:
            return text
        row = self._row(str(task_id))
        row.error = text
        if row.ended is None:
            row.ended = at
        return f"{task_id} {text}"


def _moment(timestamp: object) -> datetime | None:
    if not isinstance(timestamp, str):
        return None
    try:
        return datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    except ValueError:
        return None
