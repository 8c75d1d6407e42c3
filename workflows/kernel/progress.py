"""Words for people who look at a run in Temporal's UI."""

from engine.contracts.kernel import Delta
from workflows.kernel.state import RunState

NAMES_MAX = 4


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_MAX])
    return shown if len(names) <= NAMES_MAX else f"{shown} and {len(names) - NAMES_MAX} more"


def tick_summary(delta: Delta) -> str:
    """One line, e.g. "tick 3: done a; assigned b, c"."""
    parts = []
    finished = {item.task_id for item in delta.done}
    started = [item.task_id for item in delta.started if item.task_id not in finished]
    if started:
        parts.append("started " + _names(started))
    if delta.done:
        parts.append("done " + _names([item.task_id for item in delta.done]))
    if delta.failed:
        parts.append("failed " + _names([item.task_id for item in delta.failed]))
    if delta.gone:
        parts.append("lost " + _names(list(delta.gone)))
    if delta.expanded:
        parts.append("expanded " + _names([item.task_id for item in delta.expanded]))
    if delta.spawned:
        parts.append("added " + _names([task.id for item in delta.spawned for task in item.tasks]))
    if delta.triggered:
        parts.append("set off " + _names([item.task_id for item in delta.triggered]))
    if delta.passed:
        parts.append("skipped " + _names(list(delta.passed)))
    if delta.assigned:
        parts.append("assigned " + _names([item.task_id for item in delta.assigned]))
    if delta.compensated:
        parts.append("undone " + _names([item.task_id for item in delta.compensated]))
    if delta.uncompensated:
        parts.append("could not undo " + _names([item.task_id for item in delta.uncompensated]))
    if delta.compensating:
        parts.append("undoing " + _names([item.task_id for item in delta.compensating]))
    if delta.checkpoint is not None:
        parts.append(f"checkpoint ({delta.checkpoint.reason})")
    if delta.status is not None:
        parts.append(delta.status.value)
    return f"tick {delta.tick}: " + ("; ".join(parts) or "no change")[:180]


def progress_table(state: RunState) -> str:
    """A Markdown table of roles, and what runs now."""
    rows = ["| role | agents | bound | running | ready |", "|---|---|---|---|---|"]
    for role in sorted(state.plan.roles):
        agents = state.agents_of(role)
        bound = sum(agent.host_id is not None for agent in agents)
        running = sum(agent.load for agent in agents)
        rows.append(f"| {role} | {len(agents)} | {bound} | {running} | {len(state.ready[role])} |")
    done = f"**{state.status.value}**: {state.completed} of {len(state.tasks)} tasks completed, {state.failed} failed."
    running_now = [state.specs[i].id for i in sorted(state.in_flight)]
    now = f"\n\nRunning: {_names(running_now)}." if running_now else ""
    if state.undoing is not None:
        undone = sum(run.status == "undone" for run in state.undoing.runs.values())
        now = f"\n\nUndoing: {undone} of {len(state.undoing.runs)} steps are undone."
    return f"{done}{now}\n\n" + "\n".join(rows)
