"""What an event is to hooks: which trigger it sets off, and the subject that `event_pattern` is matched against.

A subject is one line: the event's type, then `name=value` fields in a fixed order, those that apply. Names and values
hold no spaces: what a value may not hold is replaced, or whoever writes it could forge the fields behind it.
`docs/hooks.md` lists the fields of each trigger.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.contracts.events import AuditEvent, AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.hooks import HookTrigger

SESSION_SAVED: Final = "session.saved"
SESSION_RESUMED: Final = "session.resumed"
TASK_STARTING: Final = "task.starting"
WORKFLOW_STARTING: Final = "workflow.starting"
WORKFLOW_ENDING: Final = "workflow.ending"

_SESSIONS: Final = {SESSION_SAVED: HookTrigger.SESSION_END, SESSION_RESUMED: HookTrigger.SESSION_START}

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.:-]")
_UNSAFE_IN_TASKS: Final = re.compile(r"[^A-Za-z0-9_.:\[\]-]")
"""Elements of a `for_each` task are `t[3]`."""


@dataclass(frozen=True, slots=True)
class Occasion:
    trigger: HookTrigger
    event_type: str
    fields: Mapping[str, str]

    def subject(self, workflow_name: str) -> str:
        return subject_of(self.event_type, workflow_name, self.fields)


def subject_of(event_type: str, workflow_name: str, fields: Mapping[str, str]) -> str:
    written = [_written(name, value) for name, value in {"workflow": workflow_name, **fields}.items()]
    return " ".join([_UNSAFE.sub("_", event_type), *written])


def _written(name: str, value: str) -> str:
    """Agents choose their errors' codes: one character each for what is not a name's, so none starts another field."""
    unsafe = _UNSAFE_IN_TASKS if name == "task" else _UNSAFE
    return f"{name}={unsafe.sub('_', value)}"


def occasion_of(event: AuditEvent) -> Occasion | None:
    """What asynchronous hooks, and those that guard nothing, are told of a committed fact."""
    find = _OCCASIONS.get(event.type)
    return None if find is None else find(event.type.value, event.payload)


def _task_assigned(event_type: str, payload: Mapping[str, Any]) -> Occasion:
    return Occasion(HookTrigger.AGENT_ASSIGNED, event_type, _task_fields(payload))


def _task_completed(event_type: str, payload: Mapping[str, Any]) -> Occasion:
    status = payload.get("status", "success")
    trigger = HookTrigger.POST_TASK if status == "success" else HookTrigger.AGENT_FAILED
    fields = _task_fields(payload) | {"status": str(status)}
    error = payload.get("error")
    if isinstance(error, Mapping) and error.get("code"):
        fields["error"] = str(error["code"])
    return Occasion(trigger, event_type, fields)


def _agent_lost(event_type: str, payload: Mapping[str, Any]) -> Occasion:
    return Occasion(HookTrigger.AGENT_FAILED, event_type, _task_fields(payload))


def _status_changed(event_type: str, payload: Mapping[str, Any]) -> Occasion | None:
    previous, new = payload.get("previous_status"), payload.get("new_status")
    fields = {"status": str(new), "previous": str(previous)}
    if new == ExecutionStatus.PAUSED:
        return Occasion(HookTrigger.SESSION_END, event_type, fields)
    if previous == ExecutionStatus.PAUSED and new == ExecutionStatus.EXECUTING:
        return Occasion(HookTrigger.SESSION_START, event_type, fields)
    if new in _CLOSED:
        return Occasion(HookTrigger.POST_WORKFLOW, event_type, fields)
    return None


def _external(_event_type: str, payload: Mapping[str, Any]) -> Occasion | None:
    kind = str(payload.get("event_type"))
    trigger = _SESSIONS.get(kind)
    return None if trigger is None else Occasion(trigger, kind, {})


def task_fields(task_id: str, role: str) -> dict[str, str]:
    """Of a task that no agent has yet."""
    return {"task": task_id, "role": role}


def _task_fields(payload: Mapping[str, Any]) -> dict[str, str]:
    fields = {}
    if payload.get("task_id"):
        fields["task"] = str(payload["task_id"])
    agent_id = str(payload.get("agent_id") or "")
    if agent_id:
        fields["role"] = role_of(agent_id)
        fields["agent"] = agent_id
    return fields


def role_of(agent_id: str) -> str:
    """Agents are named after their role, with a number behind it."""
    return agent_id.rpartition("-")[0] or agent_id


_CLOSED: Final = frozenset(status for status in ExecutionStatus if status.closed)

_OCCASIONS: Final = {
    AuditEventType.TASK_ASSIGNED: _task_assigned,
    AuditEventType.TASK_COMPLETED: _task_completed,
    AuditEventType.AGENT_DISCONNECTED: _agent_lost,
    AuditEventType.STATUS_CHANGED: _status_changed,
    AuditEventType.EXTERNAL_EVENT_RECEIVED: _external,
}
