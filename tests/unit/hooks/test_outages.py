"""Hook workers while servers are away for long: nothing is done with that was not recorded."""

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from engine.contracts.hooks import HookExecutionStatus
from engine.errors import UnavailableError
from hooks import recording, requests
from hooks import worker as worker_module
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome
from hooks.requests import DELIVERIES_MAX
from tests.fakes.hooks import bad, good
from tests.unit.hooks.test_worker import DEADLINE_SECONDS, TENANT, Bench, request


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(hooks_lease_seconds=1.0)
    yield bench
    await bench.stop()


async def test_what_an_outage_left_unrecorded_is_not_done_with_and_is_recorded_when_it_comes_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "TRY_AGAIN_SECONDS", 0.0)
    bench.deliveries.failures += [UnavailableError("PostgreSQL")] * recording.TRIES_MAX
    queued = bench.entry(bench.hook("h"))
    bench.start()
    await bench.until(lambda: bench.actions.calls and not bench.worker._active)
    assert bench.reader.acknowledged == []
    assert (TENANT, queued.key) in bench.deliveries.entries
    assert bench.statuses() == []
    bench.reader.idle.append(queued)
    await bench.done(queued)
    assert bench.statuses() == [("h", "completed")]
    assert bench.deliveries.entries == {}


async def test_a_recorder_that_fails_ends_its_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "STOP_SECONDS", 0.2)
    bench.deliveries.failures.append(RuntimeError("a defect"))
    queued = bench.entry(bench.hook("h"))
    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(RuntimeError, match="a defect"):
            await bench.worker.run()
    assert bench.reader.acknowledged == []
    assert (TENANT, queued.key) in bench.deliveries.entries
    assert bench.deliveries.released == [TENANT], "others need not wait for the lease"


async def test_a_hook_that_is_enabled_runs_at_once_though_its_circuit_has_just_opened(bench: Bench) -> None:
    hook = bench.hook("broken")
    bench.actions.behave("broken", lambda _: bad())
    bench.deliveries.switched_off = (hook.hook_id,)
    first = bench.entry(hook)
    bench.start()
    await bench.done(first)
    skipped = bench.entry(hook)
    await bench.done(skipped)
    assert len(bench.actions.calls) == 1
    bench.deliveries.switched_off = ()
    await bench.store.enable(TENANT, hook.hook_id, enabled=True)
    await bench.done(bench.entry(hook))
    assert len(bench.actions.calls) == 2


async def test_a_hook_that_was_read_before_its_circuit_opened_is_off_all_the_same(bench: Bench) -> None:
    gate = asyncio.Event()

    async def wait(_: HookContext) -> ActionOutcome:
        await gate.wait()
        return good()

    hook, slow = bench.hook("broken"), bench.hook("slow")
    bench.actions.behave("broken", lambda _: bad())
    bench.actions.behave("slow", wait)
    bench.deliveries.switched_off = (hook.hook_id,)
    early = bench.entry(slow, hook)
    bench.start()
    await bench.until(lambda: bench.actions.names == ["slow"])
    await bench.done(bench.entry(hook))
    gate.set()
    await bench.done(early)
    assert bench.actions.names == ["slow", "broken"]
    assert bench.deliveries.skips == [hook.hook_id]


async def test_a_request_whose_caller_has_stopped_waiting_is_dropped(bench: Bench) -> None:
    document = request(bench.hook("h").hook_id) | {"deadline_ms": round(time.time() * 1000) - 1}
    queued = bench.reader.add(None, document)
    bench.start()
    await bench.done(queued)
    assert (bench.actions.calls, bench.queue.replies, bench.store.runs) == ([], {}, [])


async def test_a_request_that_waited_too_long_for_a_slot_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    hook = bench.hook("h")
    for _ in range(4):
        await bench.worker._slots.acquire()
    queued = bench.reader.add(None, request(hook.hook_id))
    bench.start()
    await bench.until(lambda: bench.store.asked)
    monkeypatch.setattr(requests, "time", SimpleNamespace(time=lambda: float("inf")))
    bench.worker._slots.release()
    await bench.done(queued)
    assert (bench.actions.calls, bench.queue.replies) == ([], {})
    await bench.stop()


@pytest.mark.parametrize("whose", ["tenant", "operator"])
async def test_a_request_that_finds_hooks_switched_off_runs_nothing(whose: str) -> None:
    bench = Bench(hooks_enabled=whose != "operator")
    hook = bench.hook("h")
    await bench.store.set_switch(TENANT, enabled=whose != "tenant")
    queued = bench.reader.add(None, request(hook.hook_id))
    bench.start()
    await bench.done(queued)
    assert bench.queue.replies["r1"]["error"]["code"] == "SWITCHED_OFF"
    assert bench.actions.calls == []
    await bench.stop()


async def test_a_request_of_which_workers_die_is_given_up(bench: Bench) -> None:
    hook = bench.hook("killer")
    bench.start()
    for deliveries in (DELIVERIES_MAX, DELIVERIES_MAX + 1):
        await bench.done(bench.reader.add(None, request(hook.hook_id), deliveries=deliveries))
    assert bench.queue.replies["r1"]["error"]["code"] == "WORKER_LOST"
    assert len(bench.actions.calls) == 1


async def test_a_request_that_was_answered_is_not_repeated_though_its_run_was_not_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "TRY_AGAIN_SECONDS", 0.0)
    bench.deliveries.failures += [UnavailableError("PostgreSQL")] * recording.TRIES_MAX
    queued = bench.reader.add(None, request(bench.hook("h").hook_id))
    bench.start()
    await bench.done(queued)
    assert bench.queue.replies["r1"]["status"] == HookExecutionStatus.COMPLETED
    assert bench.statuses() == []
