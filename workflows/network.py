"""The network pattern's workflow: agents that send messages to each other."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from engine.contracts.kernel import ExecutionInput, ExecutionOutcome
    from workflows.policies.network import NetworkPolicy

from workflows.execution import ExecutionWorkflow


@workflow.defn(name="NetworkWorkflow")
class NetworkWorkflow(ExecutionWorkflow):
    """Carries out one execution of a network definition."""

    @workflow.init
    def __init__(self, launch: ExecutionInput) -> None:
        super().__init__(launch, NetworkPolicy())

    @workflow.run
    async def run(self, launch: ExecutionInput) -> ExecutionOutcome:  # noqa: ARG002 - taken by __init__
        return await self.carry_out()
