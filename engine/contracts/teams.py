"""What passes between an execution's workflow and those of its teams."""

from typing import Final

from pydantic import Field

from engine.contracts.model import Model

TEAM_WORKFLOW: Final = "TeamWorkflow"
TEAM_TOLD: Final = "told"
"""Signal to a team's workflow: a `TeamReport`."""

TEAM_ASKS: Final = "team_asks"
"""Signal of a team's workflow to its execution's: the team's name. It wants to hear how things stand."""

NAMES_SHOWN_MAX: Final = 20


class Work(Model):
    """A task that runs."""

    task_id: str
    agent_id: str


class TeamReport(Model):
    """How a team stands after a tick."""

    tick: int
    waiting: int = Field(0, description="tasks that are not with anybody")
    running: int = 0
    completed: int = 0
    failed: int = 0
    dropped: int = Field(0, description="skipped or cancelled")
    escalated: tuple[str, ...] = Field((), description="tasks that wait for a superior; the first few")
    now: tuple[Work, ...] = Field((), description="what runs; the first few")
    paused: bool = False
    outcome: str | None = Field(None, description="completed, failed or cancelled, once it is over")

    @property
    def open_tasks(self) -> int:
        return self.waiting + self.running


class TeamLaunch(Model):
    """The argument of a team's workflow."""

    tenant: str
    execution_id: str
    workflow_name: str
    team: str
    level: int
    lead: str
    members: tuple[str, ...]
    report: TeamReport


class TeamOutcome(Model):
    """The result of a team's workflow, as the Temporal UI shows it."""

    team: str
    outcome: str
    completed: int
    failed: int
    open_tasks: int = 0
