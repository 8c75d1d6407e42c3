"""The parent's side of the teams' workflows: begins them, tells them what their teams do, and says when all is over.

None of it is on the way of a tick. A team is told at most about once a second, later less often; at most one call to
Temporal for each team is under way. Whatever fails here leaves a team without its workflow, and nothing else.
"""

import asyncio
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from engine.contracts.kernel import ExecutionInput
    from engine.contracts.teams import TEAM_TOLD, TEAM_WORKFLOW, TeamLaunch, TeamOutcome, TeamReport
    from engine.hierarchy import Hierarchy
    from workflows.kernel.state import RunState
    from workflows.team_view import team_reports, team_summary

TELL_MS: Final = 1_000
TELL_OFTEN_MAX: Final = 20
"""Reports of one run of the execution at that pace; later ones go out more seldom, for the history's sake."""

TELL_SELDOM_MS: Final = 10_000
CLOSING_MAX: Final = timedelta(seconds=10)
"""What is left of the teams' business when the execution is over may take so long."""

OPEN: Final = "open"
OVER: Final = "over"
LOST: Final = "lost"
"""It could not be begun, or somebody has ended it: it is not begun again."""

_TENANT: Final = SearchAttributeKey.for_keyword("OrchestratorTenant")
_PATTERN: Final = SearchAttributeKey.for_keyword("OrchestratorPattern")
_WORKFLOW: Final = SearchAttributeKey.for_keyword("OrchestratorWorkflow")


class Teams:
    """The teams' workflows of one run of an execution."""

    def __init__(self, launch: ExecutionInput, hierarchy: Hierarchy) -> None:
        self._launch = launch
        self._hierarchy = hierarchy
        self._states: dict[str, str] = {} if launch.carry is None else dict(launch.carry.teams)
        self._told: dict[str, TeamReport] = {}
        """What each team's workflow has last heard from this run."""
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._asked: set[str] = set()
        self._looks = 0
        self._next_look_ms = 0
        self._timer: asyncio.Task[None] | None = None
        self.news = False
        """It is time to look again: a call has ended, a team asks, or a look was put off."""

    @property
    def busy(self) -> bool:
        """A call is under way; a run that went on as a new one would not hear of its end."""
        return bool(self._calls)

    def carried(self) -> dict[str, str]:
        return dict(sorted(self._states.items()))

    def ask(self, team: str) -> None:
        """Its workflow lives, and wants to hear how things stand."""
        if team in self._hierarchy.teams:
            self._states[team] = OPEN
            self._told.pop(team, None)
            self._asked.add(team)
            self.news = True

    def look(self, state: RunState, now_ms: int, *, none_new: bool) -> None:
        """Tell the teams what has changed for them, unless they heard a moment ago."""
        self.news = False
        if none_new or not self._hierarchy.teams:
            return
        if now_ms < self._next_look_ms and not self._asked:
            self._look_later(self._next_look_ms - now_ms)
            return
        self._asked.clear()
        if self._speak(state):
            self._looks += 1
        self._next_look_ms = now_ms + (TELL_MS if self._looks < TELL_OFTEN_MAX else TELL_SELDOM_MS)

    async def close(self, state: RunState) -> None:
        """The execution is over: each team's workflow hears its outcome, and ends."""
        if not self._hierarchy.teams:
            return
        if self._timer is not None:
            self._timer.cancel()
        try:
            await workflow.wait_condition(lambda: not self._calls, timeout=CLOSING_MAX / 2)
            self._speak(state)
            await workflow.wait_condition(lambda: not self._calls, timeout=CLOSING_MAX / 2)
        except TimeoutError:
            workflow.logger.warning("teams' workflows were not told that the execution is over")

    # Calls ---------------------------------------------------------------------------------------------------

    def _speak(self, state: RunState) -> bool:
        """Whether there was anything to say."""
        spoken = False
        for name, report in team_reports(self._hierarchy, state).items():
            if name not in self._calls and self._is_news(name, report):
                self._calls[name] = asyncio.create_task(self._call(name, report))
                spoken = True
        return spoken

    def _is_news(self, name: str, report: TeamReport) -> bool:
        known = self._states.get(name)
        if known == LOST or (known == OVER and report.outcome is not None):
            return False
        told = self._told.get(name)
        return told is None or told.model_copy(update={"tick": report.tick}) != report

    async def _call(self, name: str, report: TeamReport) -> None:
        try:
            if self._states.get(name) == OPEN:
                await self._tell(name, report)
            else:
                await self._begin(name, report)
        finally:
            del self._calls[name]
            self.news = True

    async def _begin(self, name: str, report: TeamReport) -> None:
        launch = self._team_launch(name, report)
        try:
            handle = await workflow.start_child_workflow(
                TEAM_WORKFLOW,
                launch,
                id=self._id(name),
                result_type=TeamOutcome,
                # Also when this run goes on as a new one: the team asks then, and hears that it does.
                parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
                search_attributes=self._attributes(),
                static_summary=team_summary(launch),
            )
        except WorkflowAlreadyStartedError:
            # It was told that all is over and has not ended yet, or an earlier attempt of this step has begun it.
            await self._tell(name, report)
            return
        except FailureError as error:
            workflow.logger.warning("team %s is without a workflow: %s", name, error)
            self._states[name] = LOST
            return
        handle.add_done_callback(_note_end)
        self._heard(name, report)

    async def _tell(self, name: str, report: TeamReport) -> None:
        try:
            await workflow.get_external_workflow_handle(self._id(name)).signal(TEAM_TOLD, report)
        except FailureError as error:
            workflow.logger.warning("team %s cannot be told: %s", name, error)
            self._states[name] = LOST if self._states.get(name) == OPEN else OVER
            return
        self._heard(name, report)

    def _heard(self, name: str, report: TeamReport) -> None:
        self._told[name] = report
        self._states[name] = OPEN if report.outcome is None else OVER

    def _id(self, name: str) -> str:
        return f"{self._launch.tenant}/{self._launch.execution_id}/{name}"

    def _team_launch(self, name: str, report: TeamReport) -> TeamLaunch:
        team = self._hierarchy.teams[name]
        return TeamLaunch(
            tenant=self._launch.tenant,
            execution_id=self._launch.execution_id,
            workflow_name=self._launch.workflow_name,
            team=name,
            level=self._hierarchy.levels.get(team.lead, 1),
            lead=team.lead,
            members=tuple(team.members),
            report=report,
        )

    def _attributes(self) -> TypedSearchAttributes:
        launch = self._launch
        return TypedSearchAttributes(
            [
                SearchAttributePair(_TENANT, launch.tenant),
                SearchAttributePair(_PATTERN, launch.pattern),
                SearchAttributePair(_WORKFLOW, launch.workflow_name),
            ]
        )

    def _look_later(self, delay_ms: int) -> None:
        if self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._ring(delay_ms))

    async def _ring(self, delay_ms: int) -> None:
        await workflow.sleep(timedelta(milliseconds=delay_ms), summary="tell the teams")
        self.news = True


def _note_end(handle: "asyncio.Task[TeamOutcome]") -> None:
    """However a team's workflow ends, it is no failure of the execution."""
    if not handle.cancelled():
        handle.exception()
