"""What an operator has undone after the end, on a real Temporal server; the activities are the test's."""

from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.worker import Worker

from engine.contracts import activity_names
from engine.contracts.compensation import PendingRetry, RetryOutcome, RetryRequest
from engine.contracts.definition import RetryPolicy
from engine.contracts.kernel import ErrandOutcome, ErrandRequest
from engine.embedded.temporal import TemporalServer
from engine.settings import Settings
from engine.temporal.connection import DATA_CONVERTER, connect
from workflows.compensation import HISTORY_EVENTS_MAX, CompensationWorkflow
from workflows.registered import sandbox
from workflows.replay import replay_history

RECORDED = Path(__file__).parents[2] / "golden" / "compensations"


@dataclass
class Steps:
    """So many steps are to be undone; every third one fails at its first try."""

    count: int
    undone: list[str] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)

    @activity.defn(name=activity_names.NEXT_RETRY)
    async def next_retry(self, _: RetryRequest) -> PendingRetry | None:
        if len(self.undone) == self.count:
            return None
        policy = RetryPolicy(max_attempts=3, initial_delay_seconds=0.01)
        return PendingRetry(task_id=f"t{len(self.undone)}", certain=True, attempts=4, epoch=0, retry=policy)

    @activity.defn(name=activity_names.COMPENSATE)
    async def compensate(self, request: ErrandRequest) -> ErrandOutcome:
        task_id = request.errand.task_id or ""
        self.tries[task_id] = self.tries.get(task_id, 0) + 1
        fails = len(self.undone) % 3 == 2 and self.tries[task_id] == 1
        return ErrandOutcome(key=request.errand.key, ok=not fails, code="REFUSED" if fails else "")

    @activity.defn(name=activity_names.SETTLE_RETRY)
    async def settle(self, outcome: RetryOutcome) -> None:
        if outcome.ok:
            self.undone.append(outcome.task_id)

    async def carry_out(self, client: Client, tenant: str) -> tuple[int, WorkflowHandle[CompensationWorkflow, int]]:
        request = RetryRequest(
            tenant=tenant, execution_id="e", workflow_id="w", trace_id="t", task_id="t0", request_id=str(uuid4())
        )
        async with Worker(
            client, task_queue=tenant, workflows=[CompensationWorkflow], workflow_runner=sandbox(),
            activities=[self.next_retry, self.compensate, self.settle],
        ):  # fmt: skip
            handle = await client.start_workflow(
                activity_names.COMPENSATION_WORKFLOW, request, id=f"{tenant}/compensation", task_queue=tenant,
                result_type=int,
            )  # fmt: skip
            return await handle.result(), handle


@pytest.fixture
async def client(temporal_server: TemporalServer) -> Client:
    return await connect(
        Settings.model_validate(
            {"temporal_address": temporal_server.address, "temporal_namespace": temporal_server.namespace}
        )
    )


async def test_many_steps_take_several_runs_and_each_replays(client: Client, tenant: str) -> None:
    steps = Steps(count=48)
    undone, handle = await steps.carry_out(client, tenant)
    assert undone == 48
    assert steps.undone == [f"t{n}" for n in range(48)]
    lengths: list[int] = []
    run_id = handle.first_execution_run_id
    while run_id:
        history = await client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
        assert (await replay_history(history, client.data_converter)).failure is None
        lengths.append(len(history.events))
        run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    assert len(lengths) == 2
    assert HISTORY_EVENTS_MAX <= lengths[0] < HISTORY_EVENTS_MAX + 100


async def test_a_history_from_before_there_were_several_runs_replays() -> None:
    [path] = RECORDED.glob("*.json")
    history = WorkflowHistory.from_json("w", path.read_text(encoding="utf-8"))
    assert len(history.events) > 30
    assert (await replay_history(history, DATA_CONVERTER)).failure is None
