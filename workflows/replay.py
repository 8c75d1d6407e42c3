"""Replaying an execution's history against the present code.

A history that does not replay means that the code decides differently now than it did then; runs that are under way
would break the same way.
"""

from dataclasses import dataclass

from temporalio.client import Client, WorkflowHistory
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

from engine.errors import NotFoundError, UnavailableError
from workflows.registered import WORKFLOWS, sandbox


@dataclass(frozen=True)
class Replayed:
    """What a replay showed."""

    workflow_id: str
    run_id: str
    events: int
    failure: str | None
    """Why the present code does not follow the history; None when it does."""

    @property
    def ok(self) -> bool:
        return self.failure is None


async def replay_history(history: WorkflowHistory, data_converter: DataConverter) -> Replayed:
    """Replay one history."""
    replayer = Replayer(workflows=list(WORKFLOWS), workflow_runner=sandbox(), data_converter=data_converter)
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    failure = result.replay_failure
    return Replayed(
        workflow_id=history.workflow_id,
        run_id=history.run_id,
        events=len(history.events),
        failure=None if failure is None else str(failure),
    )


async def replay_execution(client: Client, tenant: str, execution_id: str) -> list[Replayed]:
    """Replay every run of an execution (continue-as-new makes several), first to last.

    Raises NotFoundError when Temporal has no such execution.
    """
    found: list[Replayed] = []
    workflow_id = f"{tenant}/{execution_id}"
    run_id: str | None = await _first_run(client, workflow_id)
    while run_id is not None:
        history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        found.append(await replay_history(history, client.data_converter))
        last = history.events[-1]
        following = last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        run_id = following or None
    return found


async def _first_run(client: Client, workflow_id: str) -> str:
    try:
        description = await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise NotFoundError("Temporal has no such execution") from error
        raise UnavailableError(f"Temporal does not answer: {error.status.name}") from error
    raw = description.raw_description.workflow_execution_info
    return raw.first_run_id or raw.execution.run_id
