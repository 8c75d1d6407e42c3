"""How each team of a hierarchy stands, read from an execution's state; and how that reads for people."""

from typing import Final

from engine.contracts.execution import ExecutionStatus
from engine.contracts.teams import NAMES_SHOWN_MAX, TeamLaunch, TeamReport, Work
from engine.hierarchy import Hierarchy
from workflows.kernel.state import Phase, RunState

_COUNTERS: Final = {
    Phase.COMPLETED: "completed",
    Phase.FAILED: "failed",
    Phase.SKIPPED: "dropped",
    Phase.CANCELLED: "dropped",
    Phase.ASSIGNED: "running",
    Phase.RUNNING: "running",
}


class _Tally:
    """One team's counts while the tasks are gone through."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("waiting", "running", "completed", "failed", "dropped"), 0)
        self.escalated: list[str] = []
        self.now: list[Work] = []
        self.begun = False

    @property
    def open_tasks(self) -> int:
        return self.counts["waiting"] + self.counts["running"]


def team_reports(hierarchy: Hierarchy, state: RunState) -> dict[str, TeamReport]:
    """Of the teams that have had work, or some team below them. One pass over all tasks."""
    tallies = {name: _Tally() for name in hierarchy.teams}
    for i in range(len(state.tasks)):
        team = hierarchy.team_of(_role_at_work(state, i))
        if team is not None:
            _count(tallies[team], state, i)
    found = {}
    for name in hierarchy.teams:
        below = [tallies[other] for other in hierarchy.teams if other == name or name in _ancestors(hierarchy, other)]
        if any(tally.begun for tally in below):
            open_below = sum(tally.open_tasks for tally in below)
            found[name] = _report(state, tallies[name], over=not open_below or state.closed)
    return found


def _role_at_work(state: RunState, i: int) -> str:
    agent = state.agents.get(state.tasks[i].agent_id or "")
    return state.specs[i].role if agent is None else agent.role


def _count(tally: _Tally, state: RunState, i: int) -> None:
    run, spec = state.tasks[i], state.specs[i]
    tally.counts[_COUNTERS.get(run.phase, "waiting")] += 1
    tally.begun = tally.begun or run.attempt > 0 or run.phase is Phase.SUBMITTED
    if run.phase is Phase.SUBMITTED and not spec.asked and len(tally.escalated) < NAMES_SHOWN_MAX:
        tally.escalated.append(spec.id)
    if run.phase.in_flight and len(tally.now) < NAMES_SHOWN_MAX:
        tally.now.append(Work(task_id=spec.id, agent_id=run.agent_id or ""))


def _ancestors(hierarchy: Hierarchy, team: str) -> tuple[str, ...]:
    return hierarchy.above(hierarchy.teams[team].lead)


def _report(state: RunState, tally: _Tally, *, over: bool) -> TeamReport:
    outcome = None
    if over:
        outcome = "failed" if tally.counts["failed"] else "completed"
        if state.status is ExecutionStatus.CANCELLED and tally.counts["dropped"]:
            outcome = "cancelled"
    return TeamReport(
        tick=state.tick,
        **tally.counts,
        escalated=tuple(tally.escalated),
        now=tuple(tally.now),
        paused=state.paused,
        outcome=outcome,
    )


def team_summary(launch: TeamLaunch) -> str:
    members = ", ".join(launch.members)
    return f"team {launch.team} of {launch.workflow_name}: L{launch.level} {launch.lead} leads {members}"[:200]


def team_details(launch: TeamLaunch, report: TeamReport) -> str:
    """A few lines of Markdown."""
    state = report.outcome or ("paused" if report.paused else "at work")
    lines = [
        f"**{launch.team}** (L{launch.level}, led by {launch.lead}): {state}.",
        f"{report.completed} completed, {report.failed} failed, {report.running} running, {report.waiting} waiting, "
        f"{report.dropped} dropped.",
    ]
    if report.now:
        lines += [
            "",
            "| task | agent |",
            "|---|---|",
            *(f"| {work.task_id} | {work.agent_id} |" for work in report.now),
        ]
    if report.escalated:
        lines += ["", "With a superior: " + ", ".join(report.escalated) + "."]
    return "\n".join(lines)
