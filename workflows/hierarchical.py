"""The hierarchical pattern's workflow: levels of agents that delegate down and escalate up; each team shows as a child.

One kernel and one journal serve the whole execution. The teams' workflows only show what their teams do.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from engine.contracts.kernel import ExecutionInput, ExecutionOutcome
    from engine.contracts.patterns.hierarchical import HierarchicalConfig
    from workflows.policies.hierarchical import HierarchicalPolicy

from workflows.execution import ExecutionWorkflow
from workflows.teams import Teams


@workflow.defn(name="HierarchicalWorkflow")
class HierarchicalWorkflow(ExecutionWorkflow):
    """Carries out one execution of a hierarchical definition."""

    @workflow.init
    def __init__(self, launch: ExecutionInput) -> None:
        policy = HierarchicalPolicy(HierarchicalConfig.model_validate(launch.pattern_config))
        super().__init__(launch, policy)
        self._teams = Teams(launch, policy.hierarchy)

    @workflow.run
    async def run(self, launch: ExecutionInput) -> ExecutionOutcome:  # noqa: ARG002 - taken by __init__
        return await self.carry_out()

    @workflow.signal
    def team_asks(self, team: str) -> None:
        """A team's workflow has heard nothing for long, or that a run of this execution has closed."""
        self._teams.ask(team)

    def _has_work(self) -> bool:
        return super()._has_work() or self._teams.news

    async def _begin(self) -> None:
        await super()._begin()
        self._look()

    async def _tick(self) -> None:
        await super()._tick()
        self._look()

    def _look(self) -> None:
        if not self._state.closed:
            self._teams.look(self._state, self._now_ms(), none_new=self._is_long())

    async def _loop(self) -> None:
        await super()._loop()
        await self._teams.close(self._state)

    def _may_continue_as_new(self) -> bool:
        return super()._may_continue_as_new() and not self._teams.busy

    def _carried_teams(self) -> dict[str, str]:
        return self._teams.carried()
