"""The saga pattern's workflow: steps in order, undone in reverse when one cannot be done."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from engine.contracts.kernel import ExecutionInput, ExecutionOutcome
    from workflows.policies.saga import saga_policy

from workflows.execution import ExecutionWorkflow


@workflow.defn(name="SagaWorkflow")
class SagaWorkflow(ExecutionWorkflow):
    """Carries out one execution of a saga definition."""

    @workflow.init
    def __init__(self, launch: ExecutionInput) -> None:
        super().__init__(launch, saga_policy(launch))

    @workflow.run
    async def run(self, launch: ExecutionInput) -> ExecutionOutcome:  # noqa: ARG002 - taken by __init__
        return await self.carry_out()
