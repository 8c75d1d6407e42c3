"""Which workflows a worker runs, and in what sandbox; replay uses the same, so that it proves the same."""

from typing import Any, Final

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from workflows.supervisor import SupervisorWorkflow

WORKFLOWS: Final[tuple[type[Any], ...]] = (SupervisorWorkflow,)

PURE_MODULES: Final = (
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_extensions",
    "engine.contracts",
    "workflows.kernel",
    "workflows.policies",
)
"""They pass through, which saves tens of milliseconds a run; the workflow modules themselves are reloaded for each."""


def sandbox() -> SandboxedWorkflowRunner:
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PURE_MODULES))
