"""Which workflows a worker runs, and in what sandbox; replay uses the same, so that it proves the same."""

from dataclasses import dataclass
from typing import Any, Final

from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from workflows.compensation import CompensationWorkflow
from workflows.custom import CustomWorkflow
from workflows.handoff import HandoffWorkflow
from workflows.hierarchical import HierarchicalWorkflow
from workflows.network import NetworkWorkflow
from workflows.saga import SagaWorkflow
from workflows.supervisor import SupervisorWorkflow
from workflows.swarm import SwarmWorkflow
from workflows.team import TeamWorkflow

WORKFLOWS: Final[tuple[type[Any], ...]] = (
    SupervisorWorkflow,
    HierarchicalWorkflow,
    TeamWorkflow,
    SwarmWorkflow,
    NetworkWorkflow,
    SagaWorkflow,
    CustomWorkflow,
    HandoffWorkflow,
    CompensationWorkflow,
)

PURE_MODULES: Final = (
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_extensions",
    "engine.contracts",
    "engine.expressions",
    "engine.topology",
    "engine.voting",
    "workflows",
)
"""They pass through instead of being loaded again for each run, which would cost more than most runs do. What the
sandbox still does is to refuse what is not deterministic, such as the system's clock and random numbers, to modules
that come in by mistake; that ours are deterministic is shown by replaying histories."""


class _ContextFreeInstance(WorkflowInstance):
    """A workflow instance whose payloads are converted alike, whatever command they belong to.

    The SDK asks the instance, in its sandbox, for the context of every payload, six times a payload. Our converters
    take no context, so that the answer is always the same; asking took a sixth of a worker's time.
    """

    def __init__(self, inner: WorkflowInstance) -> None:
        self._inner = inner

    def activate(self, act: Any) -> Any:
        return self._inner.activate(act)

    def get_serialization_context(self, command_info: Any) -> None:  # noqa: ARG002 - the SDK's signature
        return None

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._inner.get_external_store_context(command_info)

    def get_info(self) -> Any:
        return self._inner.get_info()

    def get_thread_id(self) -> int | None:
        return self._inner.get_thread_id()


@dataclass(frozen=True)
class ContextFreeSandbox(SandboxedWorkflowRunner):
    """The SDK's sandbox, without its questions about payloads."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return _ContextFreeInstance(super().create_instance(det))


def sandbox() -> SandboxedWorkflowRunner:
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PURE_MODULES)
    return ContextFreeSandbox(restrictions=restrictions)
