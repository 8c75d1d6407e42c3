"""Launching and signalling on a real Temporal server, with nobody to carry the workflows out."""

import secrets
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from engine.contracts.definition import RetryPolicy
from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput, KernelPlan, KernelRole, KernelTask
from engine.embedded.temporal import TemporalServer
from engine.errors import LaunchRefusedError, NotFoundError, UnavailableError, UnsupportedPatternError
from engine.settings import Settings
from engine.temporal import launcher as launcher_module
from engine.temporal.connection import connect
from engine.temporal.launcher import PATTERN, TENANT, WORKFLOW, TemporalLauncher, temporal_id


@pytest.fixture
def settings(temporal_server: TemporalServer) -> Settings:
    return Settings.model_validate(
        {
            "temporal_address": temporal_server.address,
            "temporal_namespace": temporal_server.namespace,
            "task_queue": "nobody-listens",
        }
    )


@pytest.fixture
async def client(settings: Settings) -> Client:
    return await connect(settings)


def launch_of(tenant: str, execution_id: UUID, *, pattern: str = "supervisor", tasks: int = 1) -> ExecutionInput:
    task = [KernelTask(id=f"task-{n}", role="r", retry=RetryPolicy()) for n in range(tasks)]
    return ExecutionInput(
        tenant=tenant, execution_id=str(execution_id), workflow_id=str(uuid4()), workflow_name="named",
        pattern=pattern, plan=KernelPlan(tasks=tuple(task), roles={"r": KernelRole(type="synthetic", count=1)}),
        partition=0, trace_id=str(uuid4()), timeout_ms=1_000, checkpoint_interval_ms=1_000, pause_grace_ms=0,
        started_at_ms=1,
    )  # fmt: skip


async def test_an_execution_is_started_once_and_found_by_its_attributes(
    client: Client, settings: Settings, tenant: str
) -> None:
    launcher, execution_id = TemporalLauncher(client, settings), uuid4()
    await launcher.launch(launch_of(tenant, execution_id))
    description = await client.get_workflow_handle(temporal_id(tenant, execution_id)).describe()
    await launcher.launch(launch_of(tenant, execution_id))
    again = await client.get_workflow_handle(temporal_id(tenant, execution_id)).describe()
    assert again.run_id == description.run_id
    assert description.workflow_type == "SupervisorWorkflow"
    attributes = description.typed_search_attributes
    assert (attributes[TENANT], attributes[PATTERN], attributes[WORKFLOW]) == (tenant, "supervisor", "named")
    assert await launcher.closed_status(tenant, execution_id) is None


async def test_a_large_plan_arrives_as_it_was(client: Client, settings: Settings, tenant: str) -> None:
    launcher, execution_id = TemporalLauncher(client, settings), uuid4()
    launch = launch_of(tenant, execution_id, tasks=10_000)
    await launcher.launch(launch)
    history = await client.get_workflow_handle(temporal_id(tenant, execution_id)).fetch_history()
    payloads = history.events[0].workflow_execution_started_event_attributes.input.payloads
    assert len(payloads[0].data) < 300_000
    assert await client.data_converter.decode(list(payloads), [ExecutionInput]) == [launch]


async def test_signals_arrive_with_their_batches(client: Client, settings: Settings, tenant: str) -> None:
    launcher, execution_id = TemporalLauncher(client, settings), uuid4()
    await launcher.launch(launch_of(tenant, execution_id))
    event = AgentEvent(type=AgentEventType.TASK_COMPLETED, at_ms=1, task_id="task-0", result={"n": [1, None]})
    batch = InboxBatch(entry_id="1-0", partition=0, fence=1, low="1-0", events=(event,))
    await launcher.signal(tenant, execution_id, "events", [batch])
    await launcher.signal(tenant, execution_id, "catch_up")
    history = await client.get_workflow_handle(temporal_id(tenant, execution_id)).fetch_history()
    signals = [e.workflow_execution_signaled_event_attributes for e in history.events
               if e.HasField("workflow_execution_signaled_event_attributes")]  # fmt: skip
    assert [signal.signal_name for signal in signals] == ["events", "catch_up"]
    received = await client.data_converter.decode(list(signals[0].input.payloads), [list[InboxBatch]])
    assert received == [[batch]]


async def test_what_is_not_there_is_not_found(client: Client, settings: Settings, tenant: str) -> None:
    launcher = TemporalLauncher(client, settings)
    with pytest.raises(NotFoundError):
        await launcher.signal(tenant, uuid4(), "catch_up")
    with pytest.raises(NotFoundError):
        await launcher.closed_status(tenant, uuid4())


async def test_a_terminated_run_is_cancelled_takes_no_signals_and_is_not_started_again(
    client: Client, settings: Settings, tenant: str
) -> None:
    launcher, execution_id = TemporalLauncher(client, settings), uuid4()
    await launcher.launch(launch_of(tenant, execution_id))
    handle = client.get_workflow_handle(temporal_id(tenant, execution_id))
    await handle.terminate()
    assert await launcher.closed_status(tenant, execution_id) is ExecutionStatus.CANCELLED
    with pytest.raises(NotFoundError):
        await launcher.signal(tenant, execution_id, "events", [])
    await launcher.launch(launch_of(tenant, execution_id))
    assert (await handle.describe()).status is WorkflowExecutionStatus.TERMINATED


async def test_tenants_with_the_same_execution_id_are_apart(client: Client, settings: Settings, tenant: str) -> None:
    launcher, execution_id = TemporalLauncher(client, settings), uuid4()
    await launcher.launch(launch_of(tenant, execution_id))
    with pytest.raises(NotFoundError):
        await launcher.signal(tenant + "-x", execution_id, "cancel")


async def test_a_pattern_that_nothing_carries_out_is_refused(
    client: Client, settings: Settings, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.temporal.launcher.WORKFLOW_TYPES", {"supervisor": "SupervisorWorkflow"})
    with pytest.raises(UnsupportedPatternError, match="swarm"):
        await TemporalLauncher(client, settings).launch(launch_of(tenant, uuid4(), pattern="swarm"))


async def test_what_temporal_will_never_take_is_refused_for_good(
    client: Client, settings: Settings, tenant: str
) -> None:
    """Its limit of a payload is two megabytes, and this one does not compress."""
    noise = secrets.token_hex(3 * 1024 * 1024)
    launch = launch_of(tenant, uuid4()).model_copy(update={"pattern_config": {"noise": noise}})
    with pytest.raises(LaunchRefusedError, match="limit") as caught:
        await TemporalLauncher(client, settings).launch(launch)
    assert not caught.value.transient


async def test_a_server_that_does_not_answer_in_time_is_unavailable(
    client: Client, settings: Settings, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher_module, "RPC_TIMEOUT", timedelta(microseconds=1))
    launcher = TemporalLauncher(client, settings)
    with pytest.raises(UnavailableError):
        await launcher.launch(launch_of(tenant, uuid4()))
    with pytest.raises(UnavailableError):
        await launcher.signal(tenant, uuid4(), "catch_up")
    with pytest.raises(UnavailableError):
        await launcher.closed_status(tenant, uuid4())
