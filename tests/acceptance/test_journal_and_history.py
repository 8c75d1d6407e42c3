"""The journal and Temporal's history agree, whenever the worker is killed inside a workflow task."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from temporalio.client import Client
from temporalio.service import RPCError

from tests.acceptance.audit import assert_completed
from tests.acceptance.caller import Caller
from tests.acceptance.journal import (
    JournalReader,
    assert_journal_and_history_agree,
    execution_row,
    workflow_is_closed,
)
from tests.acceptance.running import RunningEngine, running_engine, until
from tests.acceptance.shapes import TWO_HOSTS, Dependencies, chain, in_turn

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

LONG_CHAIN = chain(200)
SHORT_CHAIN = chain(60)


@pytest.fixture(autouse=True, scope="module")
def warm_hosts(engine: RunningEngine) -> None:
    """Their start is not what these tests are about."""
    warm_up(engine.caller())


def warm_up(caller: Caller) -> None:
    caller.until_completed(caller.execute(caller.create(*in_turn(chain(2)), types=TWO_HOSTS)))


@contextmanager
def further_signals(engine: RunningEngine, tenant: str, execution_id: str) -> Iterator[None]:
    """Signals without a meaning, one after the other: each makes the workflow task's completion fail for once."""
    stopped = threading.Event()

    async def send() -> None:
        address, namespace = engine.announced["temporal_address"], engine.announced["temporal_namespace"]
        client = await Client.connect(address, namespace=namespace)
        handle = client.get_workflow_handle(f"{tenant}/{execution_id}")
        while not stopped.is_set():
            try:
                await handle.signal("events", [])
            except RPCError:
                return  # closed
            await asyncio.sleep(0.02)

    sender = threading.Thread(target=lambda: asyncio.run(send()), daemon=True)
    sender.start()
    try:
        yield
    finally:
        stopped.set()
        sender.join(60)
    assert not sender.is_alive()


def kill_worker_inside_a_workflow_task(engine: RunningEngine, tenant: str, execution_id: str, beyond: int) -> int:
    """Kill it when at least three committed ticks are unknown to Temporal; the last tick. `beyond`: not before that."""
    pid = engine.role("worker")
    deadline = time.monotonic() + 120
    with JournalReader(engine, tenant) as reader:
        while time.monotonic() < deadline:
            row = reader.row(execution_id)
            assert row.status in ("planning", "executing"), "it ended before its worker could be killed"
            if row.last_tick > beyond and row.last_tick - row.base_tick >= 3:
                # Nothing changes while it is stopped: what is seen now is what the kill leaves behind.
                os.kill(pid, signal.SIGSTOP)
                row = reader.row(execution_id)
                if row.last_tick - row.base_tick >= 3 and row.status == "executing":
                    os.kill(pid, signal.SIGKILL)
                    return row.last_tick
                os.kill(pid, signal.SIGCONT)
    raise AssertionError("three ticks were never committed inside one workflow task")


def assert_agreement(engine: RunningEngine, caller: Caller, execution_id: str, graph: Dependencies) -> None:
    assert_completed(caller.events(execution_id), graph)
    until(lambda: workflow_is_closed(engine, caller.tenant, execution_id), "Temporal has closed it too")
    last_tick = assert_journal_and_history_agree(engine, caller.tenant, execution_id)
    assert last_tick == execution_row(engine, caller.tenant, execution_id).last_tick
    assert engine.replays(caller.tenant, execution_id)


def run_with_kills(engine: RunningEngine, caller: Caller, kills: int) -> None:
    execution_id = caller.execute(caller.create(*in_turn(LONG_CHAIN), types=TWO_HOSTS))
    with further_signals(engine, caller.tenant, execution_id):
        tick = 0
        for _ in range(kills):
            tick = kill_worker_inside_a_workflow_task(engine, caller.tenant, execution_id, beyond=tick + 5)
        caller.until_completed(execution_id)
    assert_agreement(engine, caller, execution_id, LONG_CHAIN)


def test_the_worker_is_killed_after_several_ticks_in_one_workflow_task_while_signals_arrive(
    engine: RunningEngine, caller: Caller
) -> None:
    run_with_kills(engine, caller, kills=2)


def test_signals_alone_make_no_tick_happen_twice(engine: RunningEngine, caller: Caller) -> None:
    execution_id = caller.execute(caller.create(*in_turn(LONG_CHAIN), types=TWO_HOSTS))
    with further_signals(engine, caller.tenant, execution_id):
        caller.until_completed(execution_id)
    assert_agreement(engine, caller, execution_id, LONG_CHAIN)


def test_all_is_committed_but_unknown_to_temporal_when_the_worker_is_killed_and_nothing_more_comes(
    engine: RunningEngine, caller: Caller
) -> None:
    leave_temporal_behind(engine, caller)


def leave_temporal_behind(engine: RunningEngine, caller: Caller) -> None:
    """Temporal stands still, the worker goes on inside its workflow task to the end, and is killed."""
    execution_id = caller.execute(caller.create(*in_turn(SHORT_CHAIN), types=TWO_HOSTS))
    temporal, worker = engine.server("temporal"), engine.role("worker")
    with JournalReader(engine, caller.tenant) as reader:
        until(lambda: reader.row(execution_id).last_tick >= 2, "the first ticks are committed")
        os.kill(temporal, signal.SIGSTOP)
        try:
            last = -1

            def stands_still() -> bool:
                nonlocal last
                before, last = last, reader.row(execution_id).last_tick
                time.sleep(0.5)
                return before == last and last - reader.row(execution_id).base_tick >= 3

            until(stands_still, "the worker has done what it can without Temporal")
            os.kill(worker, signal.SIGKILL)
        finally:
            os.kill(temporal, signal.SIGCONT)
    caller.until_completed(execution_id)
    assert_agreement(engine, caller, execution_id, SHORT_CHAIN)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_journal_and_history_agree_however_often_the_worker_is_killed() -> None:
    with running_engine() as engine:
        caller = engine.caller()
        warm_up(caller)
        for _ in range(10):
            run_with_kills(engine, caller, kills=4)
            leave_temporal_behind(engine, caller)
