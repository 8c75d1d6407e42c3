"""Chains and bursts on the real engine: few round trips, and nothing lost or repeated where they are broken off."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.service import RPCError

from engine.concurrency import end_all, run_together
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Delta
from engine.postgres.stores import Stores
from engine.settings import Settings
from tests.acceptance.journal import assert_journal_and_history_agree
from tests.acceptance.running import RunningEngine
from tests.integration.engine.bench import Bench, chain, definition, open_bench, types
from worker import ROLES, build

HISTORY_EVENTS_OF_A_CHAIN = 18
"""Ten to twelve, and five for each time that a report comes later than its tick waits for it."""
FAST = 300
"""Tasks of the runs that need a tick for each."""


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that know no chains: each task is assigned when those before it are done."""
    monkeypatch.setattr("orchestration_agent.host.FEATURES", ())


async def deltas(bench: Bench, execution_id: UUID) -> list[Delta]:
    """The journal, in order."""
    found: list[Delta] = []
    while True:
        ticks = range(len(found) + 1, len(found) + 501)
        page = await bench.stores.journal.load_stream_writes(bench.tenant, execution_id, ticks)
        found.extend(page)
        if len(page) < len(ticks):
            return found


async def history_events(bench: Bench, execution_id: UUID) -> Counter[int]:
    history = await bench.handle(execution_id).fetch_history()
    return Counter(event.event_type for event in history.events)


async def assert_journal_is_history(bench: Bench, execution_id: UUID) -> None:
    """And the history is replayed."""
    announced = {
        "database_url": bench.settings.database_url.get_secret_value(),
        "temporal_address": bench.settings.temporal_address,
        "temporal_namespace": bench.settings.temporal_namespace,
    }
    engine = cast(RunningEngine, SimpleNamespace(announced=announced))

    async def closed() -> bool:
        status = (await bench.handle(execution_id).describe()).status
        return status is not None and status.name != "RUNNING"

    await bench.until(closed, "Temporal has closed it too")
    await asyncio.to_thread(assert_journal_and_history_agree, engine, bench.tenant, str(execution_id))
    await bench.assert_replays(execution_id)


async def assert_each_completed_once(bench: Bench, execution_id: UUID, tasks: list[dict[str, Any]]) -> None:
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    events = await bench.events(execution_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    done = [event.payload["task_id"] for event in events
            if event.event_type == "task.completed" and event.payload["status"] == "success"]  # fmt: skip
    assert done == [task["id"] for task in tasks]


async def starts(bench: Bench, execution_id: UUID) -> Counter[str]:
    """How often each task was begun by an agent."""
    events = await bench.events(execution_id)
    return Counter(event.payload["task_id"] for event in events if event.event_type == "agent.task_started")


# Chains --------------------------------------------------------------------------------------------------------


async def test_a_chain_of_one_role_is_one_assignment_and_a_short_history(bench: Bench) -> None:
    tasks = chain(10)
    execution_id = await bench.start(definition(*tasks))
    await assert_each_completed_once(bench, execution_id, tasks)
    assigned = [[attempt.task_id for attempt in delta.assigned] for delta in await deltas(bench, execution_id)]
    assert [names for names in assigned if names] == [[task["id"] for task in tasks]]
    await bench.until(lambda: _is_closed_in_temporal(bench, execution_id), "Temporal has closed it too")
    assert (await history_events(bench, execution_id)).total() <= HISTORY_EVENTS_OF_A_CHAIN
    await assert_journal_is_history(bench, execution_id)


async def _is_closed_in_temporal(bench: Bench, execution_id: UUID) -> bool:
    status = (await bench.handle(execution_id).describe()).status
    return status is not None and status.name != "RUNNING"


async def test_only_the_rest_of_a_chain_runs_again_when_its_host_is_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = chain(6, input={"duration_ms": 100})
    tasks[3]["input"] = {"duration_ms": 4_000}
    execution_id = await bench.start(definition(*tasks, agents=1))
    await bench.until_event(execution_id, "agent.task_started", task_id="t3")
    [(host, running)] = bench.hosts.items()
    del bench.hosts[host]
    monkeypatch.setattr(host, "_wind_down", _nothing)  # no goodbye, as of a killed process
    await end_all([running])
    await bench.start_host()
    await assert_each_completed_once(bench, execution_id, tasks)
    attempts = {}
    for delta in await deltas(bench, execution_id):
        attempts.update({item.task_id: item.attempt for item in delta.done})
    assert attempts == {"t0": 1, "t1": 1, "t2": 1, "t3": 2, "t4": 2, "t5": 2}
    await assert_journal_is_history(bench, execution_id)


async def _nothing() -> None:
    """Instead of a goodbye."""


async def test_a_pause_stops_a_chain_between_two_tasks(bench: Bench) -> None:
    tasks = chain(5, input={"duration_ms": 50})
    tasks[1]["input"] = {"duration_ms": 2_500}
    execution_id = await bench.start(definition(*tasks, agents=1))
    await bench.until_event(execution_id, "agent.task_started", task_id="t1")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.until_event(execution_id, "task.completed", task_id="t1")

    for rest in ("t2", "t3", "t4"):
        await bench.until_event(execution_id, "task.returned", task_id=rest)
    assert set(await starts(bench, execution_id)) == {"t0", "t1"}
    await bench.ask(execution_id, "resume")
    await assert_each_completed_once(bench, execution_id, tasks)
    assert set((await starts(bench, execution_id)).values()) == {1}, "nothing ran twice"
    await assert_journal_is_history(bench, execution_id)


# Bursts --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def slow_learner(one_by_one: None, bench: Bench) -> Bench:
    """Its only host knows no chains."""
    await bench.stop()
    await bench.start_host()
    return bench


async def test_hundreds_of_ticks_need_few_workflow_tasks(slow_learner: Bench) -> None:
    bench, tasks = slow_learner, chain(FAST)
    execution_id = await bench.start(definition(*tasks, agents=1))
    await assert_each_completed_once(bench, execution_id, tasks)
    journal = await deltas(bench, execution_id)
    assert len(journal) > FAST
    await bench.until(lambda: _is_closed_in_temporal(bench, execution_id), "Temporal has closed it too")
    found = await history_events(bench, execution_id)
    seconds = (journal[-1].at_ms - journal[0].at_ms) / 1000
    allowed = 2 + 2 * seconds
    assert found[EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED] <= allowed, f"{FAST} ticks in {seconds} s"
    await assert_journal_is_history(bench, execution_id)


async def send_signals(bench: Bench, execution_id: UUID) -> None:
    """Without meaning, one after the other, until it is closed; each lengthens the history."""
    while True:
        try:
            await bench.handle(execution_id).signal("events", [])
        except RPCError:
            return
        await asyncio.sleep(0.02)


async def test_going_on_as_a_new_run_amid_fast_ticks_and_signals_loses_and_repeats_nothing(
    slow_learner: Bench,
) -> None:
    bench, tasks = slow_learner, chain(120)
    for number in range(0, 120, 5):  # longer than a tick waits: its result comes by signal, amid the others
        tasks[number]["input"] = {"duration_ms": 60}
    execution_id = await bench.start(definition(*tasks, agents=1), history_events_max=15)
    sending = asyncio.create_task(send_signals(bench, execution_id))
    try:
        await assert_each_completed_once(bench, execution_id, tasks)
    finally:
        await end_all([sending])
    assert set((await starts(bench, execution_id)).values()) <= {1}
    assert await bench.assert_replays(execution_id) > 1
    await assert_journal_is_history(bench, execution_id)


@asynccontextmanager
async def engine_that_can_be_killed(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    async with AsyncExitStack() as stack:
        jobs = await build(settings, ROLES, stack)
        running = asyncio.create_task(run_together(jobs))
        try:
            yield running
        finally:
            await end_all([running])


@pytest.fixture
async def own_engine(
    engine_settings: Settings, stores: Stores, tenant: str, one_by_one: None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    """A bench without worker. A worker that is stopped there is broken off at once, whatever it is doing."""
    monkeypatch.setattr("worker.STOP_MAX", timedelta(0))
    monkeypatch.setattr("worker.STOP_GRACE", timedelta(0))
    settings = engine_settings.model_copy(update={"task_queue": f"fast-ticks-{tenant}"})
    async with open_bench(settings, stores, tenant) as bench:
        yield bench


async def test_a_workflow_task_that_is_lost_amid_a_burst_leaves_journal_and_history_alike(
    own_engine: Bench, running_worker: None
) -> None:
    bench, tasks = own_engine, chain(FAST)
    async with engine_that_can_be_killed(bench.settings):
        await bench.start_host()
        execution_id = await bench.start(definition(*tasks, agents=1))
        await bench.until_event(execution_id, "task.completed", task_id="t40")
    done = types(await bench.events(execution_id)).count("task.completed")
    assert done < FAST, "it is broken off in the middle"
    async with engine_that_can_be_killed(bench.settings):
        await assert_each_completed_once(bench, execution_id, tasks)
        await assert_journal_is_history(bench, execution_id)
