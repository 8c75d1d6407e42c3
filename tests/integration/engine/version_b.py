"""A later version of the engine's workflow code: it decides otherwise, and has a step that the present one lacks.

What it does otherwise in deciding needs no guard, since what was decided stands in the history. The additional step is
a command to Temporal, and so it is guarded by `patched`.
"""

from collections.abc import Iterator
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from engine.contracts.kernel import ExecutionInput, ExecutionOutcome
    from workflows.kernel.state import RunState
    from workflows.policies.supervisor import SupervisorPolicy

from workflows.execution import ExecutionWorkflow


class LastFirstPolicy(SupervisorPolicy):
    """The least urgent task first."""

    def share_out(self, state: RunState, role: str, waiting: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
        return super().share_out(state, role, waiting[::-1])


@workflow.defn(name="SupervisorWorkflow")
class LaterSupervisorWorkflow(ExecutionWorkflow):
    @workflow.init
    def __init__(self, launch: ExecutionInput) -> None:
        super().__init__(launch, LastFirstPolicy())

    @workflow.run
    async def run(self, launch: ExecutionInput) -> ExecutionOutcome:
        return await self.carry_out()

    async def _tick(self) -> None:
        if workflow.patched("a-pause-before-each-tick"):
            await workflow.sleep(timedelta(milliseconds=1))
        await super()._tick()
