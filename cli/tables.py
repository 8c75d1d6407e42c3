"""How executions look on a terminal."""

from collections import Counter
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.output import printable

TASKS_SHOWN_MAX = 40
ID_LENGTH = 36

STYLES = {
    "completed": "green",
    "running": "cyan",
    "executing": "cyan",
    "failed": "red",
    "paused": "yellow",
    "cancelled": "yellow",
    "skipped": "dim",
    "pending": "dim",
    "planning": "dim",
    "compensating": "magenta",
    "compensated": "magenta",
}

_EVENT_DETAILS = (
    "task_id",
    "agent_id",
    "attempt",
    "status",
    "previous_status",
    "new_status",
    "reason",
    "checkpoint_id",
)


def state_text(state: object) -> Text:
    return Text(printable(str(state)), style=STYLES.get(str(state), ""))


def plain(value: object) -> Text:
    """As text: never as rich's markup, since names and messages come from others."""
    return Text(printable("" if value is None else str(value)))


def executions_table(items: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    # The id is what other commands take: it is never cut, whatever the terminal's width.
    table.add_column("execution", no_wrap=True, min_width=ID_LENGTH)
    table.add_column("workflow", overflow="fold")
    table.add_column("status", no_wrap=True, min_width=9)
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("started", no_wrap=True, min_width=14)
    for item in items:
        done = f"{item['tasks_completed']}/{item['tasks_total']}"
        if item["tasks_failed"]:
            done += f", {item['tasks_failed']} failed"
        table.add_row(
            plain(item["execution_id"]),
            plain(item["workflow_name"]),
            state_text(item["status"]),
            plain(done),
            plain(local_time(item["started_at"])[5:19]),
        )
    return table


def status_view(view: dict[str, Any]) -> RenderableType:
    """One execution: facts, tasks, agents, error."""
    metrics = view["performance_metrics"]
    states: dict[str, str] = view.get("task_states") or {}
    counts = view.get("task_counts") or dict(Counter(states.values()))
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("execution", plain(view["execution_id"]))
    facts.add_row("workflow", plain(view["workflow_id"]))
    facts.add_row("status", state_text(view["status"]))
    if view.get("current_phase"):
        facts.add_row("phase", plain(view["current_phase"]))
    if view.get("queue"):
        place = view["queue"]
        facts.add_row("queue", plain(f"{place['priority']} priority, {place['ahead']} of your own before it"))
    fewer = [f"{role} {a['allotted']} of {a['wanted']}" for role, a in (view.get("allotment") or {}).items()
             if a["allotted"] < a["wanted"]]  # fmt: skip
    if fewer:
        facts.add_row("fewer agents", plain(", ".join(fewer)))
    awaiting = view.get("awaiting") or {}
    if awaiting:
        facts.add_row("awaits", plain("; ".join(f"{task} {', '.join(types)}" for task, types in awaiting.items())))
    facts.add_row("tasks", plain(", ".join(f"{count} {state}" for state, count in counts.items() if count)))
    facts.add_row("runtime", plain(f"{metrics['total_runtime_seconds']} s"))
    facts.add_row("overhead", plain(f"{metrics['coordination_overhead']:.1f} %"))
    if view.get("latest_checkpoint_id"):
        facts.add_row("checkpoint", plain(view["latest_checkpoint_id"]))
    parts: list[RenderableType] = [facts, _tasks_table(states)]
    error = view.get("error_details")
    if error:
        parts.append(Text(f"\n{describe_error(error)}", style="red"))
    return Group(*parts)


def _tasks_table(states: dict[str, str]) -> RenderableType:
    if not states:
        return Text("")
    table = Table(box=None, pad_edge=False)
    table.add_column("task")
    table.add_column("state")
    for task_id, state in list(states.items())[:TASKS_SHOWN_MAX]:
        table.add_row(plain(task_id), state_text(state))
    if len(states) > TASKS_SHOWN_MAX:
        table.add_row(f"... {len(states) - TASKS_SHOWN_MAX} more", "")
    return table


LEFT_SHOWN_MAX = 10
"""Steps that could not be undone, by name."""


def describe_error(error: dict[str, Any]) -> str:
    text = f"{error.get('error_code', 'failed')}: {error.get('error_message', '')}"
    if error.get("failed_task"):
        text += f" (task {error['failed_task']})"
    undone = error.get("compensation_status") or "not_required"
    if undone != "not_required":
        text += f"; compensation {undone}"
        left = (error.get("details") or {}).get("left") or ()
        text += f", left: {', '.join(left[:LEFT_SHOWN_MAX])}" if left else ""
    return printable(text)


def event_line(event: dict[str, Any]) -> str:
    payload = event.get("payload") or {}
    details = " ".join(f"{name}={payload[name]}" for name in _EVENT_DETAILS if payload.get(name) is not None)
    line = f"{event['sequence']:>5}  {local_time(event['timestamp'])}  {event['event_type']:<28} {details}"
    return printable(line.rstrip())


def local_time(timestamp: str) -> str:
    """RFC 3339 in the reader's own zone, to the millisecond."""
    try:
        moment = datetime.fromisoformat(timestamp.replace("Z", "+00:00")).astimezone()
    except ValueError:
        return timestamp
    return moment.strftime("%Y-%m-%d %H:%M:%S") + f".{moment.microsecond // 1000:03d}"
