"""The handoff pattern's workflow: one agent after another, each taking over the context."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from engine.contracts.kernel import ExecutionInput, ExecutionOutcome
    from engine.contracts.patterns.handoff import HandoffConfig
    from workflows.policies.handoff import HandoffPolicy

from workflows.execution import ExecutionWorkflow


@workflow.defn(name="HandoffWorkflow")
class HandoffWorkflow(ExecutionWorkflow):
    """Carries out one execution of a handoff definition."""

    @workflow.init
    def __init__(self, launch: ExecutionInput) -> None:
        super().__init__(launch, HandoffPolicy(HandoffConfig.model_validate(launch.pattern_config)))

    @workflow.run
    async def run(self, launch: ExecutionInput) -> ExecutionOutcome:  # noqa: ARG002 - taken by __init__
        return await self.carry_out()
