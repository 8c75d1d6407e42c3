"""A team of a hierarchy as a workflow of its own, so that Temporal's UI shows the tree and what each team does.

It decides nothing: the execution's workflow tells it, by signals, and it shows. It uses no database, and whatever
becomes of it, the execution goes on. It ends with its team's outcome when that is told to it; and when its execution is
gone without a word, which it asks after: a signal to a workflow that is closed fails.
"""

import asyncio
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from engine.contracts.teams import TEAM_ASKS, TeamLaunch, TeamOutcome, TeamReport

from workflows.team_view import team_details

SILENCE_MAX: Final = timedelta(minutes=10)
"""After so long without a word it asks whether its execution still runs."""

HISTORY_EVENTS_MAX: Final = 1_000
GONE: Final = "execution gone"


@workflow.defn(name="TeamWorkflow")
class TeamWorkflow:
    """Shows one team of one execution."""

    @workflow.init
    def __init__(self, launch: TeamLaunch) -> None:
        self._launch = launch
        self._report = launch.report
        self._heard = 0
        """Words from the execution so far."""
        self._gone = False

    @workflow.signal
    def told(self, report: TeamReport) -> None:
        """Reports may come twice; an older one says nothing new."""
        self._heard += 1
        if report.tick >= self._report.tick:
            self._report = report

    @workflow.query
    def team(self) -> TeamReport:
        return self._report

    @workflow.run
    async def run(self, launch: TeamLaunch) -> TeamOutcome:  # noqa: ARG002 - taken by __init__
        self._check_owner()
        watch = asyncio.create_task(self._watch())
        while True:
            try:
                await asyncio.shield(watch)
                break
            except asyncio.CancelledError:
                # Asked for when a run of the execution closes, be it that a new one goes on: so it is asked after.
                if watch.done():
                    watch.result()
                    break
                self._gone = self._gone or not await self._execution_runs()
        report = self._report
        workflow.set_current_details(team_details(self._launch, report))
        return TeamOutcome(
            team=self._launch.team,
            outcome=report.outcome or GONE,
            completed=report.completed,
            failed=report.failed,
            open_tasks=report.open_tasks,
        )

    def _check_owner(self) -> None:
        expected = f"{self._launch.tenant}/{self._launch.execution_id}/{self._launch.team}"
        if workflow.info().workflow_id != expected:
            raise ApplicationError("the argument is of another team", type="FOREIGN_INPUT", non_retryable=True)

    async def _watch(self) -> None:
        while self._report.outcome is None and not self._gone:
            workflow.set_current_details(team_details(self._launch, self._report))
            heard = self._heard
            try:
                await workflow.wait_condition(
                    lambda heard=heard: self._heard != heard or self._gone,  # type: ignore[misc]
                    timeout=SILENCE_MAX,
                    timeout_summary="a word from the execution",
                )
            except TimeoutError:
                self._gone = self._gone or not await self._execution_runs()
            info = workflow.info()
            if info.is_continue_as_new_suggested() or info.get_current_history_length() > HISTORY_EVENTS_MAX:
                await self._go_on_as_new()

    async def _go_on_as_new(self) -> None:
        """As the only command of its workflow task, since a signal that comes at the wrong moment fails it."""
        await workflow.sleep(timedelta(milliseconds=1), summary="before going on as a new run")
        if self._report.outcome is None and not self._gone:
            workflow.continue_as_new(self._launch.model_copy(update={"report": self._report}))

    async def _execution_runs(self) -> bool:
        execution = workflow.get_external_workflow_handle(f"{self._launch.tenant}/{self._launch.execution_id}")
        try:
            await execution.signal(TEAM_ASKS, self._launch.team)
        except (ApplicationError, FailureError):
            return False
        return True
