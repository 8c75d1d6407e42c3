"""What a test needs of a running engine, in few words."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from redis.asyncio import Redis
from temporalio.client import Client, WorkflowHandle

from engine.concurrency import end_all
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Control, ExecutionInput
from engine.contracts.streams import partition_of
from engine.contracts.views import ExecutionEvent, ExecutionView
from engine.events import keys
from engine.events.connection import connect as connect_redis
from engine.plans import PlanLoader
from engine.postgres.stores import Stores
from engine.settings import Settings
from engine.temporal.connection import connect as connect_temporal
from engine.temporal.launcher import TemporalLauncher
from hooks.directory import HookDirectory
from hooks.launching import guard
from orchestration_agent.host import AgentHost, HostOptions
from orchestration_agent.synthetic import run as synthetic
from planner.kernel_plan import kernel_plan
from planner.parse import parse_definition
from planner.pattern_config import complete_settings
from planner.planner import Planner
from workflows.replay import replay_execution

Answer = TypeVar("Answer")

DEADLINE_SECONDS = 120.0


def definition(*tasks: dict[str, Any], agents: int = 2, **fields: Any) -> dict[str, Any]:
    return {
        "name": f"wf-{uuid.uuid4().hex[:8]}",
        "version": "1.0",
        "orchestration_pattern": "supervisor",
        "agents": {"worker": {"type": "synthetic", "count": agents, "capabilities": []}},
        "tasks": [{"agent": "worker", **task} for task in tasks],
        "coordination": {"type": "hybrid"},
        **fields,
    }


def chain(length: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": f"t{n}", "depends_on": [f"t{n - 1}"] if n else [], **fields} for n in range(length)]


DIAMOND: list[dict[str, Any]] = [
    {"id": "a"},
    {"id": "b", "depends_on": ["a"]},
    {"id": "c", "depends_on": ["a"]},
    {"id": "d", "depends_on": ["b", "c"]},
]


class Bench:
    def __init__(
        self, tenant: str, stores: Stores, launcher: TemporalLauncher, client: Client, redis: "Redis",
        settings: Settings, host_options: HostOptions,
    ) -> None:  # fmt: skip
        self.tenant = tenant
        self.stores = stores
        self.launcher = launcher
        self.client = client
        self.redis = redis
        self.settings = settings
        self.host_options = host_options
        self.hosts: dict[AgentHost, asyncio.Task[None]] = {}
        self.directory = HookDirectory(stores.hooks, enabled=True)

    async def start_host(self, host: AgentHost | None = None) -> AgentHost:
        host = host or AgentHost(synthetic, replace(self.host_options, host_id=""))
        self.hosts[host] = asyncio.create_task(host.run())
        await self.until(lambda: self._is_live(host.host_id), "the host is registered")
        return host

    async def _is_live(self, host_id: str) -> bool:
        return any(host.host_id == host_id for host in await self.stores.hosts.live(self.tenant, "synthetic", 100))

    async def stop(self) -> None:
        for host, task in self.hosts.items():
            host.stop()
            await asyncio.wait([task], timeout=10)
            await end_all([task])
        self.hosts.clear()

    async def start(self, document: dict[str, Any], input_data: dict[str, Any] | None = None, **options: Any) -> UUID:
        """Create and execute; the planning row first, then Temporal, as the gateway does."""
        launch = await self.plan_row(document, input_data, **options)
        await self.launcher.launch(launch)
        return UUID(launch.execution_id)

    async def plan_row(
        self, document: dict[str, Any], input_data: dict[str, Any] | None = None, **options: Any
    ) -> ExecutionInput:
        parsed = parse_definition(document)
        plan = Planner().plan(parsed)
        stored = parsed.model_dump(mode="json")
        workflow_id, _ = await self.stores.definitions.create(self.tenant, stored, plan.plan_hash, plan, "tester")
        execution_id = uuid.uuid4()
        bare = kernel_plan(parsed, plan, "exponential_backoff")
        guarded, hooks = guard(bare, parsed.name, await self.directory.index(self.tenant))
        launch = ExecutionInput(
            tenant=self.tenant,
            execution_id=str(execution_id),
            workflow_id=str(workflow_id),
            workflow_name=parsed.name,
            pattern=parsed.orchestration_pattern.value,
            pattern_config=complete_settings(parsed),
            plan=guarded,
            partition=partition_of(str(execution_id), self.settings.event_partitions),
            trace_id=str(uuid.uuid4()),
            timeout_ms=options.get("timeout", 600) * 1000,
            checkpoint_interval_ms=options.get("checkpoint_interval", 300) * 1000,
            pause_grace_ms=options.get("pause_grace_seconds", 30) * 1000,
            started_at_ms=int(time.time() * 1000),
            history_events_max=options.get("history_events_max", 1_000),
            hooks=hooks,
        )
        await self.stores.executions.insert_planning(
            self.tenant, launch, input_data or {}, {}, "tester", allow_concurrent=True, request_hash=None
        )
        return launch

    def handle(self, execution_id: UUID) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(f"{self.tenant}/{execution_id}")

    async def until_event(self, execution_id: UUID, event_type: str, **payload: Any) -> ExecutionEvent:
        async def found() -> ExecutionEvent | None:
            for event in await self.events(execution_id):
                if event.event_type == event_type and payload.items() <= event.payload.items():
                    return event
            return None

        return await self.until(found, f"{event_type} {payload}")

    async def assert_replays(self, execution_id: UUID) -> int:
        """Every run of it; answers how many."""
        runs = await replay_execution(self.client, self.tenant, str(execution_id))
        assert [run.failure for run in runs] == [None] * len(runs)
        return len(runs)

    async def status(self, execution_id: UUID) -> ExecutionView:
        return await self.stores.executions.status(self.tenant, execution_id)

    async def events(self, execution_id: UUID) -> list[ExecutionEvent]:
        found: list[ExecutionEvent] = []
        more = True
        while more:
            after = found[-1].sequence if found else 0
            items, more = await self.stores.executions.events(
                self.tenant, execution_id, after_sequence=after, limit=1000
            )
            found.extend(items)
        return found

    async def ask(self, execution_id: UUID, action: str, checkpoint_id: str | None = None) -> Control:
        """As the API does: the control row first, then the signal with its id."""
        control = Control.model_validate(
            {"request_id": str(uuid.uuid4()), "action": action, "checkpoint_id": checkpoint_id}
        )
        await self.stores.executions.request_control(self.tenant, execution_id, control)
        await self.launcher.signal(self.tenant, execution_id, action, control.request_id)
        return control

    async def until_status(self, execution_id: UUID, *wanted: ExecutionStatus) -> ExecutionView:
        async def reached() -> ExecutionView | None:
            view = await self.status(execution_id)
            return view if view.status in wanted else None

        return await self.until(reached, f"status {', '.join(wanted)}")

    async def until_closed(self, execution_id: UUID) -> ExecutionView:
        return await self.until_status(
            execution_id, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED
        )

    async def until(
        self,
        probe: Callable[[], Awaitable[Answer | bool | None]],
        what: str,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> Answer:
        """Ask until the answer is truthy."""
        deadline = time.monotonic() + deadline_seconds
        while time.monotonic() < deadline:
            answer = await probe()
            if answer:
                return answer  # type: ignore[return-value]  # truthy: neither None nor False
            await asyncio.sleep(0.01)
        raise AssertionError(f"not within {deadline_seconds} s: {what}")


def types(events: list[ExecutionEvent], task_id: str | None = None) -> list[str]:
    return [e.event_type for e in events if task_id is None or e.payload.get("task_id") == task_id]


@asynccontextmanager
async def open_bench(settings: Settings, stores: Stores, tenant: str, **hosts: Any) -> AsyncIterator[Bench]:
    """A bench without hosts yet; `hosts` is what their options have otherwise than usual."""
    redis = connect_redis(settings)
    try:
        client = await connect_temporal(settings, PlanLoader(stores.plans), stores.dispatch)
        await redis.sadd(keys.TENANTS, tenant)
        usual: dict[str, Any] = {
            "redis_url": settings.redis_url.get_secret_value(), "tenant": tenant, "types": ("synthetic",),
            "capabilities": "*", "slots": 8, "heartbeat_seconds": 0.5, "grace_seconds": 1.0,
        }  # fmt: skip
        options = HostOptions(**usual | hosts)
        bench = Bench(tenant, stores, TemporalLauncher(client, settings), client, redis, settings, options)
        try:
            yield bench
        finally:
            await bench.stop()
    finally:
        await redis.aclose()
