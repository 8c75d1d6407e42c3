"""The custom pattern's workflow: a registered program, run for each task that it handles."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from engine.contracts.kernel import ExecutionInput, ExecutionOutcome
    from workflows.policies.custom import CustomPolicy

from workflows.execution import ExecutionWorkflow


@workflow.defn(name="CustomWorkflow")
class CustomWorkflow(ExecutionWorkflow):
    """Carries out one execution of a definition that uses a registered pattern."""

    @workflow.init
    def __init__(self, launch: ExecutionInput) -> None:
        super().__init__(launch, CustomPolicy())

    @workflow.run
    async def run(self, launch: ExecutionInput) -> ExecutionOutcome:  # noqa: ARG002 - taken by __init__
        return await self.carry_out()
