"""What must hold for the audit log of every execution, whatever was killed while it ran."""

from collections import Counter
from datetime import datetime
from typing import Any

Event = dict[str, Any]
Dependencies = dict[str, list[str]]


def assert_sound(events: list[Event], dependencies: Dependencies) -> None:
    """Sequence without a gap, each step in its order, only the current attempt's result, each task done once."""
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    recorded = [recorded_at(event) for event in events]
    assert recorded == sorted(recorded)
    assert [event["epoch"] for event in events] == sorted(event["epoch"] for event in events)
    assert [event for event in events if happened_at(event) > recorded_at(event)] == []
    assert len({event["trace_id"] for event in events}) == 1
    walk = _Walk(dependencies)
    for event in events:
        walk.step(event)


def assert_completed(events: list[Event], dependencies: Dependencies) -> None:
    """A sound log of an execution that did everything and was never set back."""
    assert_sound(events, dependencies)
    assert successes(events) == dict.fromkeys(dependencies, 1)
    assert status_changes(events)[-1] == "completed"


def successes(events: list[Event]) -> Counter[str]:
    """How often each task completed."""
    return Counter(e["payload"]["task_id"] for e in of_type(events, "task.completed") if _succeeded(e))


def status_changes(events: list[Event]) -> list[str]:
    return [event["payload"]["new_status"] for event in of_type(events, "workflow.status_changed")]


def of_type(events: list[Event], event_type: str, task_id: str | None = None) -> list[Event]:
    return [
        event
        for event in events
        if event["event_type"] == event_type and task_id in (None, event["payload"].get("task_id"))
    ]


def happened_at(event: Event) -> datetime:
    return datetime.fromisoformat(event["timestamp"])


def recorded_at(event: Event) -> datetime:
    return datetime.fromisoformat(event["recorded_at"])


def attempts(events: list[Event], task_id: str) -> list[int]:
    return [event["payload"]["attempt"] for event in of_type(events, "agent.task_assigned", task_id)]


def _succeeded(event: Event) -> bool:
    return bool(event["payload"]["status"] == "success")


class _Walk:
    """The state that the log tells, fact by fact."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._done: dict[str, Event] = {}
        self._attempt: dict[str, int] = {}
        self._running: dict[str, tuple[str, int]] = {}
        self._started: dict[str, Event] = {}
        self._status: str | None = None

    def step(self, event: Event) -> None:
        assert self._status not in ("completed", "failed", "cancelled"), f"after the end: {event}"
        payload = event["payload"]
        match event["event_type"]:
            case "workflow.status_changed":
                assert self._status in (None, payload["previous_status"]), event
                self._status = payload["new_status"]
            case "workflow.resumed_from_checkpoint":
                for task_id in payload["repeated_tasks"]:
                    del self._done[task_id]
            case "agent.task_assigned":
                self._assigned(event, payload)
            case "agent.task_started":
                self._current(event, payload)
                self._started[payload["task_id"]] = event
                for dependency in self._dependencies[payload["task_id"]]:
                    assert happened_at(self._done[dependency]) <= happened_at(event), (dependency, event)
            case "task.completed":
                self._current(event, payload)
                started = self._started.pop(payload["task_id"], None)
                if _succeeded(event):
                    assert started is not None, f"completed without having started: {event}"
                    assert happened_at(started) <= happened_at(event)
                    self._done[payload["task_id"]] = event
                del self._running[payload["task_id"]]
            case "task.returned" | "task.cancelled":
                self._running.pop(payload["task_id"], None)
                self._started.pop(payload["task_id"], None)

    def _assigned(self, event: Event, payload: dict[str, Any]) -> None:
        task_id, attempt = payload["task_id"], payload["attempt"]
        assert self._status == "executing", f"assigned while {self._status}: {event}"
        assert task_id not in self._done, f"assigned although it is done: {event}"
        assert task_id not in self._running, f"assigned while an attempt runs: {event}"
        assert attempt > self._attempt.get(task_id, 0), event
        for dependency in self._dependencies[task_id]:
            # Sent ahead to the host that has its dependency in flight; when it starts is seen at its start.
            ahead = dependency in self._running
            assert dependency in self._done or ahead, f"before its dependency {dependency}: {event}"
        self._attempt[task_id] = attempt
        self._running[task_id] = (payload["agent_id"], attempt)

    def _current(self, event: Event, payload: dict[str, Any]) -> None:
        """Only what the current attempt reports counts."""
        where = (payload["agent_id"], payload["attempt"])
        assert self._running.get(payload["task_id"]) == where, f"not the current attempt: {event}"
