"""Hosts that fall silent, come back, die or are slow, on the real engine with real agent processes."""

import asyncio
import os
import signal
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from engine.agents import health_watch, speed
from engine.concurrency import end_all, run_together
from engine.contracts.dynamic import ExternalEvent
from engine.contracts.execution import ExecutionStatus
from engine.errors import NotFoundError
from engine.settings import Settings
from orchestration_agent.host import AgentHost
from orchestration_agent.synthetic import run as synthetic
from orchestration_agent.task import Task
from tests.integration.engine.bench import Bench, definition
from worker import ROLES, build

LOST_AFTER_SECONDS = 8.0
LONG_MS = 6_000


@pytest.fixture(scope="module")
async def running_worker(engine_settings: Settings) -> AsyncIterator[None]:
    """With time between suspect and gone, and with speeds that are looked at often."""
    settings = engine_settings.model_copy(update={"host_lost_after_seconds": LOST_AFTER_SECONDS})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health_watch, "SPEEDS_SECONDS", 0.2)
        patch.setattr(speed, "WRITE_SECONDS", 0.2)
        async with AsyncExitStack() as stack:
            running = asyncio.create_task(run_together(await build(settings, ROLES, stack)))
            yield
            await end_all([running])


@pytest.fixture
async def process(bench: Bench) -> AsyncIterator[asyncio.subprocess.Process]:
    """A second host, in a process of its own."""
    host_id = f"process-{uuid.uuid4().hex[:8]}"
    options = bench.host_options
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "orchestration_agent", "--entry", "synthetic", "--tenant", bench.tenant,
        "--types", "synthetic", "--slots", str(options.slots), "--host-id", host_id, "--capabilities", "*",
        env={
            "PATH": os.defpath,
            "ORCHESTRATION_AGENT_REDIS_URL": options.redis_url,
            "ORCHESTRATION_AGENT_HEARTBEAT_SECONDS": "0.5",
        },
    )  # fmt: skip
    started.host_id = host_id  # type: ignore[attr-defined]  # told to the test beside its pid
    await bench.until(lambda: bench._is_live(host_id), "the process is registered")
    yield started
    if started.returncode is None:
        started.kill()
    await asyncio.wait_for(started.wait(), 30)


def host_of(process: asyncio.subprocess.Process) -> str:
    return str(process.host_id)  # type: ignore[attr-defined]  # by the fixture


async def start_work(bench: Bench, host_id: str) -> tuple[UUID, str]:
    """Both hosts have a long task, and four more wait for an event. Answers the agent that the host serves."""
    tasks: list[dict[str, Any]] = [{"id": f"long{n}", "input": {"duration_ms": LONG_MS}} for n in range(2)]
    tasks += [{"id": f"late{n}", "triggers": [{"event": "go"}]} for n in range(4)]
    execution_id = await bench.start(definition(*tasks))
    for n in range(2):
        await bench.until_event(execution_id, "agent.task_started", task_id=f"long{n}")
    bound = await bench.until_event(execution_id, "agent.bound", host_id=host_id)
    return execution_id, bound.payload["agent_id"]


async def go(bench: Bench, execution_id: UUID) -> None:
    for n in range(4):
        event = ExternalEvent(event_id=f"go-{n}", type="go", at_ms=0)
        await bench.launcher.signal(bench.tenant, execution_id, "external_event", event)


async def assigned(bench: Bench, execution_id: UUID) -> list[tuple[str, str]]:
    events = await bench.events(execution_id)
    return [(e.payload["task_id"], e.payload["agent_id"]) for e in events if e.event_type == "agent.task_assigned"]


async def test_a_stopped_process_gets_nothing_new_and_when_it_goes_on_its_work_counts(
    bench: Bench, process: asyncio.subprocess.Process
) -> None:
    execution_id, agent_id = await start_work(bench, host_of(process))
    process.send_signal(signal.SIGSTOP)
    suspect = await bench.until_event(execution_id, "agent.suspect", agent_id=agent_id)
    assert suspect.payload["host_id"] == host_of(process)
    await go(bench, execution_id)
    for n in range(4):
        await bench.until_event(execution_id, "agent.task_assigned", task_id=f"late{n}")
    other = await bench.start(definition({"id": "a"}, {"id": "b"}))
    assert (await bench.until_closed(other)).status is ExecutionStatus.COMPLETED
    process.send_signal(signal.SIGCONT)
    await bench.until_event(execution_id, "agent.recovered", agent_id=agent_id)
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    given = await assigned(bench, execution_id)
    assert sorted(task_id for task_id, _ in given) == sorted({task_id for task_id, _ in given}), "nothing ran twice"
    assert {agent for task_id, agent in given if task_id.startswith("late")} == {"worker-1", "worker-2"} - {agent_id}
    bound = [e.payload["host_id"] for e in await bench.events(other) if e.event_type == "agent.bound"]
    assert host_of(process) not in bound
    await bench.assert_replays(execution_id)

    async def well() -> bool:
        return (await bench.stores.host_health.get(bench.tenant, host_of(process))).state == "healthy"

    await bench.until(well, "its row says so")


async def test_a_stopped_process_that_does_not_go_on_is_gone_and_its_task_runs_elsewhere(
    bench: Bench, process: asyncio.subprocess.Process
) -> None:
    execution_id, agent_id = await start_work(bench, host_of(process))
    store = bench.stores.host_health
    busy = await store.get(bench.tenant, host_of(process))
    assert (busy.state, busy.load.agents, busy.load.executions, busy.load.tasks_in_flight) == ("healthy", 1, 1, 1)
    process.send_signal(signal.SIGSTOP)
    await bench.until_event(execution_id, "agent.suspect", agent_id=agent_id)
    process.kill()
    await bench.until_event(execution_id, "agent.disconnected", agent_id=agent_id)
    await go(bench, execution_id)
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    given = Counter(task_id for task_id, _ in await assigned(bench, execution_id))
    assert sorted(given.values()) == [1, 1, 1, 1, 1, 2]

    async def gone() -> bool:
        return (await store.get(bench.tenant, host_of(process))).state == "gone"

    await bench.until(gone, "its row says so")
    detail = await store.get(bench.tenant, host_of(process))
    assert [change.state for change in detail.history] == ["gone", "suspect", "healthy"]
    assert all(change.reason.startswith("silent for ") for change in detail.history[:2])
    listed = await store.page(bench.tenant, limit=10, page_token=None)
    assert host_of(process) not in {host.host_id for host in listed.items}
    first = await store.page(bench.tenant, limit=1, page_token=None, states=("healthy", "suspect", "gone"))
    rest = await store.page(
        bench.tenant, limit=10, page_token=first.next_page_token, states=("healthy", "suspect", "gone")
    )
    assert host_of(process) in {host.host_id for host in (*first.items, *rest.items)}
    with pytest.raises(NotFoundError):
        await store.get(f"{bench.tenant}-other", host_of(process))
    await bench.assert_replays(execution_id)


async def slowly(task: Task) -> Any:
    """Five times as long as the others."""
    await asyncio.sleep(0.2)
    return await synthetic(task)


async def test_a_slow_host_is_given_less_than_a_fast_one(bench: Bench) -> None:
    """Waves of four tasks for two agents with eight slots each: whoever is chosen has room."""
    slow = await bench.start_host(AgentHost(slowly, replace(bench.host_options, host_id="")))
    waves = 30
    tasks = [
        {
            "id": f"w{wave:02}-{n}",
            "depends_on": [f"w{wave - 1:02}-{k}" for k in range(4)] if wave else [],
            "input": {"duration_ms": 50},
        }
        for wave in range(waves)
        for n in range(4)
    ]
    execution_id = await bench.start(definition(*tasks))
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    events = await bench.events(execution_id)
    (agent_id,) = [e.payload["agent_id"] for e in events
                   if e.event_type == "agent.bound" and e.payload["host_id"] == slow.host_id]  # fmt: skip
    shares = Counter(task_id[:3] for task_id, agent in await assigned(bench, execution_id) if agent == agent_id)
    assert shares["w00"] == 2, "nothing is known at first: half of them"
    assert sum(shares[f"w{wave:02}"] for wave in range(waves - 5, waves)) == 0
    assert sum(shares.values()) < waves
    seen = await bench.stores.host_health.get(bench.tenant, slow.host_id)
    assert seen.speed <= 0.25
    assert seen.measured_speed is not None
    assert seen.measured_speed < 0.35
    assert seen.history[0].reason.startswith("measured at ")
    later = await bench.start(definition({"id": "a"}, {"id": "b"}))
    await bench.until_closed(later)
    bound = {e.payload["host_id"] for e in await bench.events(later) if e.event_type == "agent.bound"}
    assert bound == {host.host_id for host in bench.hosts} - {slow.host_id}
    await bench.assert_replays(execution_id)
