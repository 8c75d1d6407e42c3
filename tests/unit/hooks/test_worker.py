"""The hook worker over fakes: order, limits, repetitions, workers that die, hooks that are switched off."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from engine.contracts.hooks import (
    CircuitState,
    DeliveryKey,
    HookCircuit,
    HookDetail,
    HookEntry,
    HookExecutionStatus,
    HookTrigger,
)
from engine.errors import EngineError, NotFoundError, UnavailableError
from engine.events.hook_queue import QueuedRun
from engine.hook_ports import OverdueEntry
from engine.settings import Settings
from hooks import recording, running
from hooks import worker as worker_module
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome
from hooks.running import run_id_of
from hooks.worker import HookSources, HookWorker
from tests.fakes.hooks import FakeActions, FakeDeliveries, FakeHookQueue, FakeHookStore, bad, good, new_hook

TENANT = "acme"
DEADLINE_SECONDS = 10.0


class FakeReader:
    """Streams as lists; `idle` is what another reader left behind."""

    def __init__(self) -> None:
        self.waiting: list[QueuedRun] = []
        self.idle: list[QueuedRun] = []
        self.acknowledged: list[QueuedRun] = []
        self.kept: list[QueuedRun] = []
        self.limits: list[int] = []
        self.left = False
        self.failures: list[Exception] = []
        self._count = 0

    def add(
        self, key: DeliveryKey | None, request: dict[str, Any] | None = None, band: int = 1, deliveries: int = 1
    ) -> QueuedRun:
        self._count += 1
        queued = QueuedRun(TENANT, band, f"{self._count}-0", key, request, deliveries)
        self.waiting.append(queued)
        return queued

    async def take(self, limit: int) -> list[QueuedRun]:
        if self.failures:
            raise self.failures.pop(0)
        self.limits.append(limit)
        self.waiting.sort(key=lambda queued: queued.band)
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        if not taken:
            await asyncio.sleep(0.005)
        return taken

    async def take_over(self, idle_ms: int) -> list[QueuedRun]:
        idle, self.idle = self.idle, []
        return idle

    async def keep(self, runs: Sequence[QueuedRun]) -> None:
        self.kept += runs

    async def acknowledge(self, runs: Sequence[QueuedRun]) -> None:
        self.acknowledged += runs

    async def leave(self) -> None:
        self.left = True


class FakeFacts:
    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.sessions: dict[str, Any] = {}
        self.error: EngineError | None = None

    async def put_payload(self, tenant: str, execution_id: UUID, payload: bytes) -> str:
        raise NotImplementedError

    async def payload(self, tenant: str, execution_id: UUID, reference: str) -> bytes:
        if self.error is not None:
            raise self.error
        return self.stored[reference]

    async def event_payloads(self, tenant: str, execution_id: UUID, event_ids: Sequence[str]) -> Mapping[str, Any]:
        return {event_id: self.sessions[event_id] for event_id in event_ids if event_id in self.sessions}


class FakeFeed:
    def __init__(self) -> None:
        self.nudges: list[tuple[str, str, dict[str, Any]]] = []

    async def nudge(self, tenant: str, execution_id: str, message: dict[str, Any]) -> None:
        self.nudges.append((tenant, execution_id, message))


class Bench:
    def __init__(self, **settings: Any) -> None:
        self.store = FakeHookStore()
        self.deliveries = FakeDeliveries(self.store)
        self.queue = FakeHookQueue()
        self.reader = FakeReader()
        self.facts = FakeFacts()
        self.actions = FakeActions()
        self.feed = FakeFeed()
        self.settings = Settings(_env_file=None, **{"hooks_slots": 4, "hooks_lease_seconds": 60.0, **settings})
        self.worker = HookWorker(
            self.queue,  # type: ignore[arg-type]  # what the worker uses of it
            self.reader,  # type: ignore[arg-type]  # what the worker uses of it
            HookSources(self.store, self.deliveries, self.facts, self.facts),
            self.actions,
            self.feed,
            self.settings,
            "me",
        )
        self._running: asyncio.Task[None] | None = None
        self._tick = 0

    def hook(self, name: str, **fields: Any) -> HookDetail:
        return self.store.add(TENANT, new_hook(name, **fields))

    def entry(self, *hooks: HookDetail, band: int = 1, **fields: Any) -> QueuedRun:
        self._tick += 1
        entry = HookEntry(
            execution_id=str(uuid4()), workflow_id=str(uuid4()), workflow_name="build", tick=self._tick, position=0,
            trigger=HookTrigger.POST_TASK, event_type="task.completed", subject="task.completed workflow=build task=a",
            band=band, hooks=tuple(hook.hook_id for hook in hooks), at_ms=1,
            **{"payload": {"task_id": "a", "agent_id": "worker-1", "status": "success"}, **fields},
        )  # fmt: skip
        return self.reader.add(self.deliveries.deliver(TENANT, entry), band=band)

    def start(self) -> None:
        self._running = asyncio.create_task(self.worker.run())

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running], timeout=DEADLINE_SECONDS)
            assert self._running.done()

    async def until(self, holds: Any) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not holds():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.002)

    async def done(self, *queued: QueuedRun) -> None:
        await self.until(lambda: set(queued) <= set(self.reader.acknowledged))

    def statuses(self) -> list[tuple[str, str]]:
        return [(run.hook_name, run.status.value) for _, run in self.store.runs]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.stop()


async def test_an_entrys_hooks_run_in_order_are_recorded_and_then_it_is_gone(bench: Bench) -> None:
    one, two = bench.hook("one"), bench.hook("two")
    queued = bench.entry(one, two)
    bench.start()
    await bench.done(queued)
    assert bench.actions.names == ["one", "two"]
    assert bench.statuses() == [("one", "completed"), ("two", "completed")]
    assert bench.deliveries.entries == {}
    assert bench.feed.nudges[0][2] == {"sequence": 7}
    context = bench.actions.calls[0]
    assert (context.task_id, context.role, context.status) == ("a", "worker", "success")


async def test_urgent_bands_go_first_and_no_more_is_taken_than_there_are_slots(bench: Bench) -> None:
    gate = asyncio.Event()

    async def wait(_: HookContext) -> ActionOutcome:
        await gate.wait()
        return good()

    slow, urgent, lazy = bench.hook("slow"), bench.hook("urgent"), bench.hook("lazy")
    bench.actions.behave("slow", wait)
    first = [bench.entry(slow) for _ in range(4)]
    bench.start()
    await bench.until(lambda: len(bench.actions.calls) == 4)
    later = [bench.entry(lazy, band=2), bench.entry(urgent, band=0)]
    await asyncio.sleep(0.05)
    assert len(bench.actions.calls) == 4, "nothing more is taken up"
    gate.set()
    await bench.done(*first, *later)
    assert bench.actions.names[4:] == ["urgent", "lazy"]


async def test_a_failing_hook_is_repeated_and_holds_no_slot_meanwhile() -> None:
    bench = Bench(hooks_slots=1)
    failures = iter([bad(), bad()])
    bench.actions.behave("flaky", lambda _: next(failures, good()))
    policy = {"max_attempts": 3, "initial_delay_seconds": 0.05}
    flaky, other = bench.hook("flaky", retry_policy=policy), bench.hook("other")
    first, second = bench.entry(flaky), bench.entry(other)
    bench.start()
    await bench.done(first, second)
    assert bench.actions.names == ["flaky", "other", "flaky", "flaky"]
    [record] = [run for _, run in bench.store.runs if run.hook_name == "flaky"]
    assert (record.status, record.attempts) == (HookExecutionStatus.COMPLETED, 3)
    assert record.duration_ms >= 100
    await bench.stop()


@pytest.mark.parametrize(
    ("outcome", "policy", "calls"),
    [
        (bad(), None, 1),
        (bad(retryable=False, refused=True), {"max_attempts": 3, "initial_delay_seconds": 0}, 1),
        (bad(status="timeout"), {"max_attempts": 2, "initial_delay_seconds": 0, "backoff": "linear"}, 3),
    ],
)
async def test_what_is_not_to_be_repeated_is_not(
    bench: Bench, outcome: ActionOutcome, policy: dict[str, Any] | None, calls: int
) -> None:
    bench.actions.behave("h", lambda _: outcome)
    queued = bench.entry(bench.hook("h", retry_policy=policy))
    bench.start()
    await bench.done(queued)
    assert len(bench.actions.calls) == calls
    [(_, record)] = bench.store.runs
    assert (record.status.value, record.refused) == (outcome.status, outcome.refused)
    assert record.error_message == "FAILED: no"


async def test_an_action_that_raises_or_never_ends_is_a_failed_run_of_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "OVERTIME_SECONDS", -0.95)

    async def never(_: HookContext) -> ActionOutcome:
        await asyncio.Event().wait()
        return good()

    def defect(_: HookContext) -> ActionOutcome:
        raise RuntimeError("oh")

    bench.actions.behave("never", never)
    bench.actions.behave("defect", defect)
    queued = bench.entry(bench.hook("never", timeout_seconds=1), bench.hook("defect"), bench.hook("fine"))
    bench.start()
    await bench.done(queued)
    assert bench.statuses() == [("never", "timeout"), ("defect", "failed"), ("fine", "completed")]
    assert "RuntimeError: oh" in (bench.store.runs[1][1].error_message or "")


async def test_hooks_that_are_gone_disabled_or_switched_off_meanwhile_do_not_run(bench: Bench) -> None:
    gone, disabled = bench.hook("gone"), bench.hook("disabled")
    opened = HookCircuit(state=CircuitState.OPEN, opened_at=datetime.now(UTC))
    off = bench.store.add(TENANT, new_hook("off"), circuit=opened)
    del bench.store.hooks[TENANT, gone.hook_id]
    bench.store.replace(TENANT, disabled.hook_id, enabled=False)
    queued = bench.entry(gone, disabled, off)
    bench.start()
    await bench.done(queued)
    assert bench.actions.calls == []
    assert bench.deliveries.skips == [off.hook_id]


async def test_while_the_operator_has_turned_hooks_off_what_is_queued_goes_without_running() -> None:
    bench = Bench(hooks_enabled=False)
    queued = bench.entry(bench.hook("h"))
    bench.start()
    await bench.done(queued)
    assert bench.actions.calls == []
    await bench.stop()


async def test_a_hook_whose_circuit_opens_is_skipped_at_once_and_one_trial_at_a_time_tries_it(bench: Bench) -> None:
    broken = bench.hook("broken")
    bench.actions.behave("broken", lambda _: bad())
    bench.deliveries.switched_off = (broken.hook_id,)
    first = bench.entry(broken)
    bench.start()
    await bench.done(first)
    second = bench.entry(broken)
    await bench.done(second)
    assert len(bench.actions.calls) == 1
    gate = asyncio.Event()

    async def wait(_: HookContext) -> ActionOutcome:
        await gate.wait()
        return good()

    trial = bench.store.add(TENANT, new_hook("trial"), circuit=HookCircuit(state=CircuitState.HALF_OPEN))
    bench.actions.behave("trial", wait)
    one = bench.entry(trial)
    await bench.until(lambda: bench.actions.names.count("trial") == 1)
    another = bench.entry(trial)
    await bench.done(another)
    gate.set()
    await bench.done(one)
    assert bench.actions.names.count("trial") == 1


async def test_what_another_worker_has_or_has_done_is_left_to_it(bench: Bench) -> None:
    hook = bench.hook("h")
    theirs, done, strange = bench.entry(hook), bench.entry(hook), bench.reader.add(None)
    assert theirs.key is not None
    assert done.key is not None
    bench.deliveries.claims[TENANT, theirs.key] = ("another", 1)
    del bench.deliveries.entries[TENANT, done.key]
    bench.start()
    await bench.done(theirs, done, strange)
    assert bench.actions.calls == []
    assert (TENANT, theirs.key) in bench.deliveries.entries


async def test_what_a_dead_worker_left_is_taken_over_and_its_recorded_hooks_do_not_run_again() -> None:
    bench = Bench(hooks_lease_seconds=1.0)
    one, two = bench.hook("one"), bench.hook("two")
    queued = bench.entry(one, two)
    bench.reader.waiting.clear()
    bench.reader.idle.append(queued)
    assert queued.key is not None
    bench.deliveries.claims[TENANT, queued.key] = ("me", 1)
    # The dead worker had recorded its first hook.
    entry = bench.deliveries.entries[TENANT, queued.key]
    outcome = running.record_of(
        one, run_id_of(TENANT, queued.key, one.hook_id), good(), 1, execution_id=UUID(entry.execution_id),
        trace_id="", subject="", trigger=entry.trigger,
    )  # fmt: skip
    await bench.deliveries.record(TENANT, [outcome])
    bench.start()
    await bench.done(queued)
    assert bench.actions.names == ["two"]
    await bench.stop()


async def test_an_entry_whose_workers_die_again_and_again_is_reported_and_not_tried_any_more(bench: Bench) -> None:
    hook = bench.hook("killer")
    queued = bench.entry(hook)
    assert queued.key is not None
    bench.deliveries.claims[TENANT, queued.key] = ("me", worker_module.CLAIMS_MAX)
    bench.start()
    await bench.done(queued)
    assert bench.actions.calls == []
    [(_, record)] = bench.store.runs
    assert record.status is HookExecutionStatus.FAILED
    assert "WORKER_LOST" in (record.error_message or "")


async def test_leases_are_renewed_and_overdue_entries_are_told_of_again() -> None:
    bench = Bench(hooks_lease_seconds=1.0)
    gate = asyncio.Event()

    async def wait(_: HookContext) -> ActionOutcome:
        await gate.wait()
        return good()

    hook = bench.hook("slow")
    bench.actions.behave("slow", wait)
    queued = bench.entry(hook)
    late = OverdueEntry(tenant=TENANT, key=DeliveryKey(execution_id=uuid4(), tick=1, position=0), band=1)
    bench.deliveries.late.append(late)
    bench.start()
    await bench.until(lambda: bench.deliveries.renewed and bench.reader.kept and bench.queue.again)
    assert bench.queue.again == [late]
    bench.reader.idle.append(queued)
    await asyncio.sleep(0.5)
    gate.set()
    await bench.done(queued)
    assert bench.actions.names == ["slow"], "what is under way here is not taken up twice"
    await bench.stop()


async def test_results_that_are_stored_apart_and_what_came_with_a_session_are_found(bench: Bench) -> None:
    hook = bench.hook("h")
    bench.facts.stored["r"] = orjson.dumps({"large": True})
    bench.facts.sessions |= {"e1": {"session_id": "s"}, "e2": [1]}
    queued = [
        bench.entry(hook, payload={"result_ref": "r"}),
        bench.entry(hook, payload={"event_id": "e1"}),
        bench.entry(hook, payload={"event_id": "e2"}),
    ]
    bench.start()
    await bench.done(*queued)
    found = {orjson.dumps([context.result, dict(context.values)]) for context in bench.actions.calls}
    wanted = [[{"large": True}, {}], [None, {"session_id": "s"}], [None, {"payload": [1]}]]
    assert found == {orjson.dumps(item) for item in wanted}


async def test_a_result_that_is_gone_is_left_out_and_one_that_cannot_be_read_now_waits_for_another_time(
    bench: Bench,
) -> None:
    hook = bench.hook("h")
    bench.facts.error = NotFoundError("gone")
    gone = bench.entry(hook, payload={"result_ref": "r"})
    bench.start()
    await bench.done(gone)
    assert bench.actions.calls[0].result is None
    bench.facts.error = UnavailableError("away")
    away = bench.entry(hook, payload={"result_ref": "r"})
    await bench.until(lambda: not bench.reader.waiting)
    await asyncio.sleep(0.05)
    assert away not in bench.reader.acknowledged
    assert len(bench.actions.calls) == 1


async def test_outages_are_sat_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "TRY_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(worker_module, "PAUSE_SECONDS", 0.01)
    bench.reader.failures.append(UnavailableError("Redis"))
    bench.deliveries.failures += [UnavailableError("PostgreSQL"), UnavailableError("PostgreSQL")]
    queued = bench.entry(bench.hook("h"))
    bench.start()
    await bench.done(queued)
    assert bench.statuses() == [("h", "completed")]


async def test_a_record_that_can_never_be_written_holds_nothing_up(bench: Bench) -> None:
    bench.deliveries.failures.append(EngineError("refused"))
    queued = bench.entry(bench.hook("h"))
    bench.start()
    await bench.done(queued)
    assert bench.statuses() == []


async def test_stopping_lets_what_is_under_way_end_and_gives_the_rest_to_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "STOP_SECONDS", 0.2)

    async def brief(_: HookContext) -> ActionOutcome:
        await asyncio.sleep(0.05)
        return good()

    async def never(_: HookContext) -> ActionOutcome:
        await asyncio.Event().wait()
        return good()

    bench.actions.behave("brief", brief)
    bench.actions.behave("never", never)
    ended, left = bench.entry(bench.hook("brief")), bench.entry(bench.hook("never"))
    bench.start()
    await bench.until(lambda: len(bench.actions.calls) == 2)
    await bench.stop()
    assert ended in bench.reader.acknowledged
    assert left not in bench.reader.acknowledged
    assert bench.deliveries.released == [TENANT]
    assert bench.reader.left


def request(hook_id: object, context: dict[str, Any] | None = None) -> dict[str, Any]:
    deadline_ms = round((time.time() + DEADLINE_SECONDS) * 1000)
    return {"request_id": "r1", "hook_id": str(hook_id), "context": context or {}, "deadline_ms": deadline_ms}


async def test_a_run_that_somebody_waits_for_happens_once_and_is_answered(bench: Bench) -> None:
    policy = {"max_attempts": 3, "initial_delay_seconds": 0}
    hook = bench.hook("h", retry_policy=policy, enabled=False)
    bench.actions.behave("h", lambda context: bad() if context.task_id == "bad" else good("said"))
    given = {"task_id": "a", "tenant": "another", "work_dir": "/", "custom": 1, "result": {"x": 1}}
    queued = bench.reader.add(None, request(hook.hook_id, given), band=0)
    bench.start()
    await bench.done(queued)
    answer = bench.queue.replies["r1"]
    assert (answer["status"], answer["output"]) == ("completed", "said")
    [context] = bench.actions.calls
    assert (context.tenant, context.task_id, context.work_dir) == (TENANT, "a", None)
    assert context.values == {"custom": 1}
    failed = bench.reader.add(None, request(hook.hook_id, {"task_id": "bad"}))
    await bench.done(failed)
    assert bench.queue.replies["r1"]["status"] == "failed"
    assert len(bench.actions.calls) == 2
    assert {run.workflow_execution_id for _, run in bench.store.runs} == {None}


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ({"hook_id": str(uuid4())}, "HOOK_NOT_FOUND"),
        ({"deadline_ms": "soon"}, "INVALID_PARAMETERS"),
        ({"hook_id": "not an id"}, "INVALID_PARAMETERS"),
        ({"hook_id": None}, "INVALID_PARAMETERS"),
    ],
)
async def test_a_request_that_cannot_be_carried_out_is_answered_too(
    bench: Bench, named: dict[str, Any], code: str
) -> None:
    queued = bench.reader.add(None, request(uuid4()) | named)
    bench.start()
    await bench.done(queued)
    assert bench.queue.replies["r1"]["error"]["code"] == code


async def test_a_context_that_is_no_context_is_refused(bench: Bench) -> None:
    hook = bench.hook("h")
    queued = bench.reader.add(None, request(hook.hook_id, {"attempt": "many"}))
    bench.start()
    await bench.done(queued)
    assert bench.queue.replies["r1"]["error"]["code"] == "INVALID_PARAMETERS"
