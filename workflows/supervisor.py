"""The supervisor pattern's workflow: a master that shares ready tasks out to its workers."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from engine.contracts.kernel import ExecutionInput, ExecutionOutcome
    from workflows.policies.supervisor import supervisor_policy

from workflows.execution import ExecutionWorkflow


@workflow.defn(name="SupervisorWorkflow")
class SupervisorWorkflow(ExecutionWorkflow):
    """Carries out one execution of a supervisor definition."""

    @workflow.init
    def __init__(self, launch: ExecutionInput) -> None:
        super().__init__(launch, supervisor_policy(launch.pattern_config))

    @workflow.run
    async def run(self, launch: ExecutionInput) -> ExecutionOutcome:  # noqa: ARG002 - taken by __init__
        return await self.carry_out()
