"""What watchers are told: the audit log in the message types of the WebSocket interface."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson

from engine.contracts.events import AuditEventType
from engine.contracts.views import ExecutionEvent, ExecutionView

Payload = Mapping[str, Any]


def _status_changed(payload: Payload, _at: str) -> dict[str, Any]:
    return {"previous_status": payload.get("previous_status"), "new_status": payload.get("new_status")}


def _task_assigned(payload: Payload, _at: str) -> dict[str, Any]:
    return {**_where(payload), "dependencies": payload.get("dependencies", [])}


def _task_completed(payload: Payload, _at: str) -> dict[str, Any]:
    data = {
        **_where(payload),
        "status": payload.get("status", "success"),
        "result": payload.get("result"),
        "duration_seconds": round(payload.get("duration_seconds") or 0),
    }
    return data | {name: payload[name] for name in ("result_ref", "error") if name in payload}


def _error_occurred(payload: Payload, _at: str) -> dict[str, Any]:
    return {
        "error_type": payload.get("error_type"),
        "error_message": payload.get("error_message"),
        **{name: payload[name] for name in ("task_id", "agent_id", "attempt") if name in payload},
    }


def _checkpoint_created(payload: Payload, at: str) -> dict[str, Any]:
    return {"checkpoint_id": payload.get("checkpoint_id"), "checkpoint_timestamp": at}


def _hook_executed(payload: Payload, _at: str) -> dict[str, Any]:
    names = ("hook_id", "hook_name", "trigger", "duration_ms")
    # The interface knows two; the audit log and the hook's records also tell a timeout.
    status = "completed" if payload.get("status") == "completed" else "failed"
    return {name: payload.get(name) for name in names} | {"status": status}


def _where(payload: Payload) -> dict[str, Any]:
    return {name: payload.get(name) for name in ("task_id", "agent_id", "attempt")}


_MESSAGES: Final[dict[str, tuple[str, Callable[[Payload, str], dict[str, Any]]]]] = {
    AuditEventType.STATUS_CHANGED: ("workflow.status_changed", _status_changed),
    AuditEventType.TASK_ASSIGNED: ("agent.task_assigned", _task_assigned),
    AuditEventType.TASK_COMPLETED: ("task.completed", _task_completed),
    AuditEventType.ERROR_OCCURRED: ("error.occurred", _error_occurred),
    AuditEventType.CHECKPOINT_CREATED: ("checkpoint.created", _checkpoint_created),
    AuditEventType.HOOK_EXECUTED: ("hook.executed", _hook_executed),
}

SNAPSHOT_TASKS_MAX: Final = 2_000
"""Above this a snapshot says how many tasks are in which state, and not which."""


def message_of(execution_id: UUID, event: ExecutionEvent) -> tuple[str, str] | None:
    """Its type and text; None for facts that have no message of their own; the audit log has them all."""
    known = _MESSAGES.get(event.event_type)
    if known is None:
        return None
    kind, data = known
    at = _rfc3339(event.timestamp)
    fields = {"execution_id": str(execution_id), **data(event.payload, at), "timestamp": at}
    return kind, _message(kind, fields, at, event.sequence)


def snapshot_message(view: ExecutionView, sequence: int) -> str:
    """The execution as `workflow.status` answers it, and the sequence up to which it holds everything. It is no fact of
    the log, and has no sequence itself."""
    left_out = {"task_states"} if len(view.task_states) > SNAPSHOT_TASKS_MAX else set()
    data = {**view.model_dump(mode="json", exclude=left_out), "last_sequence": sequence}
    return _message("workflow.snapshot", data, _rfc3339(datetime.now(UTC)), None)


def progress_message(execution_id: UUID, progress: Payload) -> str:
    """Progress is no fact of the log, so it has no sequence."""
    at = _rfc3339(datetime.now(UTC))
    fields = {
        "execution_id": str(execution_id),
        "task_id": progress.get("task_id"),
        "agent_id": progress.get("agent_id"),
        "progress": progress.get("progress"),
        "timestamp": at,
    }
    return _message("task.progress_update", fields, at, None)


def _message(kind: str, data: dict[str, Any], at: str, sequence: int | None) -> str:
    return orjson.dumps({"type": kind, "data": data, "timestamp": at, "sequence": sequence}).decode()


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
