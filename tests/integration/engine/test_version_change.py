"""Executions that stand at each place where one can stand are carried over to a changed version of the code.

Version A is the present code, version B (`version_b`) decides in another order and takes an additional step. Both are
workers of one Temporal worker deployment; an execution that began under A goes on under B when B becomes current.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest
from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.service import RPCError, RPCStatusCode

import worker
import workflows.replay
from engine.concurrency import end_all, run_together
from engine.contracts.execution import ExecutionStatus
from engine.errors import UnavailableError
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.stores import Stores
from engine.settings import Settings
from engine.temporal.launcher import TemporalLauncher
from tests.integration.engine.bench import DIAMOND, Bench, chain, definition, open_bench, types
from tests.integration.engine.version_b import LaterSupervisorWorkflow
from workflows.supervisor import SupervisorWorkflow

pytestmark = pytest.mark.timeout(120)

CLASSES: dict[str, type[Any]] = {"a": SupervisorWorkflow, "b": LaterSupervisorWorkflow}
TURNED_AWAY = {RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.UNAVAILABLE}


def in_turn(length: int, duration_ms: int) -> dict[str, Any]:
    """A chain that two roles carry out in turn, so that each of its tasks comes back to the engine."""
    tasks = [{**task, "agent": ("odd", "even")[n % 2]} for n, task in enumerate(chain(length))]
    role = {"type": "synthetic", "count": 1, "capabilities": []}
    document = definition(*({**task, "input": {"duration_ms": duration_ms}} for task in tasks))
    return {**document, "agents": {"odd": role, "even": role}}


class Drill:
    """A deployment of its own, with a bench on it; events come by signal, from the bridge of the shared worker."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = bench
        self._monkeypatch = monkeypatch
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._stack = AsyncExitStack()

    async def start(self, version: str) -> None:
        """Start that version's worker and make it the current one."""
        settings = self.bench.settings.model_copy(update={"worker_build_id": version})
        with self._monkeypatch.context() as patch:
            patch.setattr(worker, "WORKFLOW_CLASSES", (CLASSES[version],))
            jobs = await worker.build(settings, frozenset({worker.WORKFLOWS}), self._stack)
            self._workers[version] = asyncio.create_task(run_together(jobs))
            await self.bench.until(lambda: self._make_current(version), f"version {version} is current")

    async def _make_current(self, version: str) -> bool:
        """False while the server has not seen that version's worker."""
        request = SetWorkerDeploymentCurrentVersionRequest(
            namespace=self.bench.settings.temporal_namespace,
            deployment_name=self.bench.settings.worker_deployment_name or "",
            build_id=version,
            identity="drill",
        )
        try:
            await self.bench.client.workflow_service.set_worker_deployment_current_version(request)
        except RPCError as error:
            if error.status not in TURNED_AWAY:
                raise
            return False
        return True

    async def change(self) -> None:
        """Roll version B out: it becomes current, then the worker of A stops in order."""
        await self.start("b")
        await end_all([self._workers.pop("a")])

    async def close(self) -> None:
        await end_all(self._workers.values())
        await self._stack.aclose()

    async def until_pending(self, execution_id: UUID, activity: str) -> None:
        """The run waits for that regular activity."""

        async def pending() -> bool:
            described = await self.bench.handle(execution_id).describe()
            return any(a.activity_type.name == activity for a in described.raw_description.pending_activities)

        await self.bench.until(pending, f"{activity} is pending")

    async def versions(self, execution_id: UUID) -> list[str]:
        """Which versions completed its workflow tasks, run after run, in order and without repetitions."""
        found: list[str] = []
        described = (await self.bench.handle(execution_id).describe()).raw_description.workflow_execution_info
        run_id = described.first_run_id
        while run_id:
            handle = self.bench.client.get_workflow_handle(f"{self.bench.tenant}/{execution_id}", run_id=run_id)
            history = await handle.fetch_history()
            for event in history.events:
                if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                    by: WorkerDeploymentVersion = event.workflow_task_completed_event_attributes.deployment_version
                    found += [by.build_id] if found[-1:] != [by.build_id] else []
            run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        return found

    async def assert_carried_over(self, execution_id: UUID, tasks: Sequence[str]) -> None:
        """Completed, each task once, begun by A and ended by B; and B's code explains the whole history."""
        done = await self.bench.until_closed(execution_id)
        assert done.status is ExecutionStatus.COMPLETED, done.error_details
        events = await self.bench.events(execution_id)
        assert [e.sequence for e in events] == list(range(1, len(events) + 1))
        last_epoch = [e for e in events if e.event_type == "task.completed" and e.payload["status"] == "success"]
        completed = {(e.epoch, e.payload["task_id"]) for e in last_epoch}
        assert len(completed) == len(last_epoch), "a task was completed twice"
        assert {task_id for _, task_id in completed} == set(tasks)
        assert await self.versions(execution_id) == ["a", "b"]
        await self.assert_replays_under("b", execution_id)

    async def assert_replays_under(self, version: str, execution_id: UUID) -> None:
        with self._monkeypatch.context() as patch:
            patch.setattr(workflows.replay, "WORKFLOWS", (CLASSES[version],))
            await self.bench.assert_replays(execution_id)


@pytest.fixture
async def drill(
    engine_settings: Settings,
    stores: Stores,
    running_worker: None,
    tenant: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Drill]:
    """With version A running and current, and a host (unless the test asks for none)."""
    name = f"drill-{uuid.uuid4().hex[:12]}"
    values = {"task_queue": name, "worker_deployment_name": name, **getattr(request, "param", {})}
    settings = engine_settings.model_copy(update=values)
    async with open_bench(settings, stores, tenant) as bench:
        drill = Drill(bench, monkeypatch)
        await drill.start("a")
        await bench.start_host()
        yield drill
        await bench.stop()
        await drill.close()


async def test_waiting_for_results(drill: Drill) -> None:
    slow = [{**task, "input": {"duration_ms": 1_500}} for task in DIAMOND]
    execution_id = await drill.bench.start(definition(*slow))
    await drill.bench.until_event(execution_id, "agent.task_started", task_id="b")
    await drill.change()
    await drill.assert_carried_over(execution_id, ["a", "b", "c", "d"])


async def test_waiting_for_the_due_time_of_a_retry(drill: Drill) -> None:
    retry = {"max_attempts": 3, "initial_delay_seconds": 6}
    task = {"id": "a", "input": {"fail_times": 1}, "retry_policy": retry}
    execution_id = await drill.bench.start(definition(task, {"id": "b", "depends_on": ["a"]}))
    await drill.bench.until_event(execution_id, "task.retry_scheduled", task_id="a")
    await drill.change()
    await drill.assert_carried_over(execution_id, ["a", "b"])


async def test_waiting_for_hosts(drill: Drill) -> None:
    await drill.bench.stop()
    execution_id = await drill.bench.start(definition(*chain(3)))
    await drill.until_pending(execution_id, "allocate_agents")
    await drill.change()
    await drill.bench.start_host()
    await drill.assert_carried_over(execution_id, ["t0", "t1", "t2"])


async def test_paused(drill: Drill) -> None:
    slow = [{**task, "input": {"duration_ms": 300}} for task in DIAMOND]
    execution_id = await drill.bench.start(definition(*slow))
    await drill.bench.until_event(execution_id, "agent.task_assigned", task_id="a")
    await drill.bench.ask(execution_id, "pause")
    await drill.bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await drill.change()
    assert (await drill.bench.status(execution_id)).status is ExecutionStatus.PAUSED
    await drill.bench.ask(execution_id, "resume")
    await drill.assert_carried_over(execution_id, ["a", "b", "c", "d"])


async def test_reading_the_checkpoint_to_resume_from(drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = drill.bench
    execution_id = await bench.start(in_turn(4, duration_ms=300))
    first = str(uuid.uuid4())
    await bench.until_event(execution_id, "task.completed", task_id="t0")
    await bench.ask(execution_id, "checkpoint", first)
    await bench.until_event(execution_id, "workflow.checkpoint_created", checkpoint_id=first)
    await bench.until_event(execution_id, "task.completed", task_id="t2")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    with monkeypatch.context() as outage:
        outage.setattr(PostgresExecutionStore, "checkpoint", _away)
        await bench.ask(execution_id, "resume", first)
        await drill.until_pending(execution_id, "load_checkpoint")
        await drill.change()
    await drill.assert_carried_over(execution_id, ["t0", "t1", "t2", "t3"])
    assert (await bench.status(execution_id)).epoch == 2


async def test_going_on_as_new_runs(drill: Drill) -> None:
    execution_id = await drill.bench.start(in_turn(16, duration_ms=150), history_events_max=25)
    await drill.bench.until_event(execution_id, "task.completed", task_id="t6")
    await drill.change()
    await drill.assert_carried_over(execution_id, [f"t{n}" for n in range(16)])
    events = await drill.bench.events(execution_id)
    assert types(events).count("agent.task_assigned") == 16


async def test_waiting_patiently_while_postgresql_is_away(drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = [{**task, "input": {"duration_ms": 500}} for task in DIAMOND]
    execution_id = await drill.bench.start(definition(*slow))
    await drill.bench.until_event(execution_id, "agent.task_started", task_id="a")
    with monkeypatch.context() as outage:
        outage.setattr(PostgresJournal, "commit", _away)
        await drill.until_pending(execution_id, "commit_tick_patiently")
        await drill.change()
    await drill.assert_carried_over(execution_id, ["a", "b", "c", "d"])


async def _away(*_: object) -> None:
    raise UnavailableError("PostgreSQL does not answer")


@pytest.mark.parametrize("drill", [{"worker_versioning": "pinned"}], indirect=True)
async def test_a_pinned_execution_stays_with_its_version_and_new_ones_begin_under_the_other(drill: Drill) -> None:
    document = in_turn(3, duration_ms=700)
    before = await drill.bench.start(document)
    await drill.bench.until_event(before, "agent.task_started", task_id="t0")
    await drill.start("b")
    after = await drill.bench.start({**document, "name": f"{document['name']}-after"})
    for execution_id, version in ((before, "a"), (after, "b")):
        done = await drill.bench.until_closed(execution_id)
        assert done.status is ExecutionStatus.COMPLETED
        assert await drill.versions(execution_id) == [version]
        await drill.assert_replays_under(version, execution_id)


async def test_executions_of_workers_without_a_version_move_to_the_first_version(drill: Drill) -> None:
    """As when a deployment begins to name its versions."""
    bench = drill.bench
    name = f"unnamed-{uuid.uuid4().hex[:12]}"
    unnamed = bench.settings.model_copy(update={"task_queue": name, "worker_deployment_name": None})
    named = bench.settings.model_copy(update={"task_queue": name, "worker_deployment_name": name})
    bench.settings, bench.launcher = named, TemporalLauncher(bench.client, named)
    async with AsyncExitStack() as stack:
        running = asyncio.create_task(
            run_together(await worker.build(unnamed, frozenset({worker.WORKFLOWS}), stack))
        )  # fmt: skip
        slow = [{**task, "input": {"duration_ms": 1_500}} for task in DIAMOND]
        execution_id = await bench.start(definition(*slow))
        await bench.until_event(execution_id, "agent.task_started", task_id="a")
        await drill.start("b")
        await end_all([running])
        done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    assert await drill.versions(execution_id) == ["", "b"]
    await drill.assert_replays_under("b", execution_id)


SHAPES: dict[str, list[dict[str, Any]]] = {
    "fast diamond": DIAMOND,
    "slow diamond": [{**task, "input": {"duration_ms": 120}} for task in DIAMOND],
    "fan": [{"id": f"f{n}", "input": {"duration_ms": 20 * n}} for n in range(30)],
    "two lanes": [
        {"id": f"{lane}{n}", "depends_on": [f"{lane}{n - 1}", f"{other}{n - 1}"] if n else [],
         "input": {"duration_ms": 60 if lane == "l" else 5}}
        for n in range(8) for lane, other in (("l", "r"), ("r", "l"))
    ],
    "timer after an assignment": [
        {"id": "urgent", "input": {"duration_ms": 100, "fail_times": 1},
         "retry_policy": {"max_attempts": 2, "initial_delay_seconds": 1}},
        {"id": "after", "depends_on": ["urgent"], "input": {"duration_ms": 100}},
        *({"id": f"w{n}", "input": {"duration_ms": 1_500}} for n in range(30)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
async def test_what_one_version_decided_is_explained_by_another_that_decides_otherwise(
    bench: Bench, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = await bench.start(definition(*SHAPES[shape], agents=3))
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    monkeypatch.setattr(workflows.replay, "WORKFLOWS", (LaterSupervisorWorkflow,))
    await bench.assert_replays(execution_id)
