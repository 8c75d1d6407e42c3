"""The swarm pattern's workflow: equal agents that decide by vote."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from engine.contracts.kernel import ExecutionInput, ExecutionOutcome
    from workflows.policies.swarm import SwarmPolicy

from workflows.execution import ExecutionWorkflow


@workflow.defn(name="SwarmWorkflow")
class SwarmWorkflow(ExecutionWorkflow):
    """Carries out one execution of a swarm definition."""

    @workflow.init
    def __init__(self, launch: ExecutionInput) -> None:
        super().__init__(launch, SwarmPolicy())

    @workflow.run
    async def run(self, launch: ExecutionInput) -> ExecutionOutcome:  # noqa: ARG002 - taken by __init__
        return await self.carry_out()
