"""Having a step undone: which host is asked, what it is told, and what follows from each answer or from none."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import compensation
from activities.compensation import CompensationActivities, wire_task_id
from engine.contracts.compensation import (
    CompensationAnswer,
    CompensationCall,
    CompensationView,
    PendingRetry,
    RetryOutcome,
    RetryRequest,
    TaskToUndo,
)
from engine.contracts.definition import RetryPolicy
from engine.contracts.kernel import AgentBinding, BindRequest, BindResult, Errand, ErrandOutcome, ErrandRequest
from engine.contracts.views import Page
from engine.errors import EngineError, NotFoundError, UnavailableError
from engine.events.bodies import GrownBodies
from engine.events.wire import WireEvent
from engine.ports import HostRecord, StoredBody, TaskAddition

EXECUTION = "00000000-0000-4000-8000-000000000001"
KEY = "compensate/t1/2"


def request(task_id: str = "t1", **call: Any) -> ErrandRequest:
    given = CompensationCall(attempt=2, **call).model_dump(mode="json")
    return ErrandRequest(
        tenant="acme",
        execution_id=EXECUTION,
        workflow_id="w",
        trace_id="r",
        epoch=3,
        errand=Errand(key=KEY, kind="compensate", task_id=task_id, input=given),
    )


def event(kind: str, **fields: Any) -> WireEvent:
    values = {"type": f"agent.task_{kind}", "at_ms": 1, "task_id": "compensate:t1", "agent_id": "worker-2"}
    return WireEvent.model_validate({**values, "epoch": 3, "attempt": 2, **fields})


def failed(code: str, *, retryable: bool = True) -> WireEvent:
    return event("failed", error={"code": code, "message": "no", "retryable": retryable})


class FakeDispatch:
    async def body(self, tenant: str, execution_id: UUID) -> StoredBody:
        task = {"id": "t1", "agent": "worker", "compensation_action": "undo", "input": {"n": 1}, "timeout_seconds": 1}
        return StoredBody(
            execution_id=str(execution_id),
            workflow_id="w",
            input_data={"trip": 7},
            definition={
                "agents": {"worker": {"type": "synthetic", "capabilities": ["x"]}},
                "tasks": [task, {"id": "plain", "agent": "worker"}],
            },
            trace_id="r",
        )


class FakeGraphs:
    async def describe(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> Mapping[str, TaskAddition]:
        return {}


class FakeBinder:
    def __init__(self, *hosts: str) -> None:
        self.hosts = list(hosts)
        self.asked: list[BindRequest] = []

    async def bind(self, request: BindRequest) -> BindResult:
        self.asked.append(request)
        if not self.hosts:
            return BindResult(bindings=(), missing=("worker-1",))
        return BindResult(bindings=(AgentBinding(agent_id="worker-1", role="worker", host_id=self.hosts[0]),))


class FakeHosts:
    def __init__(self, *live: str) -> None:
        self.names = list(live)

    async def live(self, tenant: str, agent_type: str, limit: int) -> Sequence[HostRecord]:
        now = datetime.now(UTC)
        return [
            HostRecord(host_id=name, types=(agent_type,), slots=1, registered_at=now, last_seen=now)
            for name in self.names
        ]


class FakeLine:
    """`answers` are what comes after the n-th assignment; `kept` what was there before."""

    def __init__(self, *answers: Sequence[WireEvent], kept: Sequence[WireEvent] = ()) -> None:
        self.answers = list(answers)
        self.kept = list(kept)
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.expiring: list[str] = []
        self.waiting: list[WireEvent] = []
        self.failure: EngineError | None = None

    async def send(self, tenant: str, host_id: str, document: dict[str, Any]) -> None:
        self.sent.append((host_id, document))
        if "assign" in document and self.answers:
            self.waiting.extend(self.answers.pop(0))

    async def listen(self, stream: str, after: str, wait_seconds: float) -> tuple[Sequence[WireEvent], str]:
        if self.failure is not None:
            raise self.failure
        found = [*self.kept, *self.waiting]
        self.kept, self.waiting = [], []
        await asyncio.sleep(0.01)
        return found, f"{len(self.sent)}-{len(found)}"

    async def let_expire(self, stream: str) -> None:
        self.expiring.append(stream)

    def assigned(self) -> list[str]:
        return [host_id for host_id, document in self.sent if "assign" in document]


class FakeStore:
    def __init__(self) -> None:
        self.settled: list[RetryOutcome] = []
        self.failure: EngineError | None = None

    async def task(self, tenant: str, execution_id: UUID, task_id: str) -> TaskToUndo:
        return TaskToUndo(agent_id="worker-2", result={"seat": "4A"})

    async def next_retry(self, request: RetryRequest) -> PendingRetry | None:
        if self.failure is not None:
            raise self.failure
        return PendingRetry(task_id=request.task_id, certain=True, attempts=1, epoch=1, retry=RetryPolicy())

    async def settle_retry(self, outcome: RetryOutcome) -> None:
        if self.failure is not None:
            raise self.failure
        self.settled.append(outcome)

    async def list(
        self, tenant: str, execution_id: UUID, *, limit: int, page_token: str | None
    ) -> Page[CompensationView]:
        raise NotImplementedError

    async def begin_retry(self, tenant: str, execution_id: UUID, task_id: str, actor: str) -> RetryRequest:
        raise NotImplementedError

    async def mark_done(
        self, tenant: str, execution_id: UUID, task_id: str, actor: str, reason: str | None
    ) -> tuple[CompensationAnswer, RetryRequest | None]:
        raise NotImplementedError


class Desk:
    def __init__(self, line: FakeLine, binder: FakeBinder | None = None, hosts: FakeHosts | None = None) -> None:
        self.line = line
        self.binder = binder or FakeBinder("host-1")
        self.hosts = hosts or FakeHosts("host-1")
        self.store = FakeStore()
        dispatch: Any = FakeDispatch()
        graphs: Any = FakeGraphs()
        fake_hosts: Any = self.hosts
        self.activities = CompensationActivities(
            self.store, dispatch, GrownBodies(dispatch, graphs), self.binder, fake_hosts, line
        )
        self.environment = ActivityEnvironment()

    async def undo(self, given: ErrandRequest | None = None) -> ErrandOutcome:
        return await self.environment.run(self.activities.compensate, given or request())


async def test_an_agent_gets_the_steps_input_and_result_and_the_key_that_never_changes() -> None:
    line = FakeLine([event("started"), event("completed", result=None)])
    desk = Desk(line)
    outcome = await desk.undo(request(certain=False, agent_id="worker-5"))
    assert outcome == ErrandOutcome(key=KEY, value="compensated")
    host_id, entry = line.sent[0]
    assert (host_id, entry["control"], entry["input"]) == ("host-1", "run", {"trip": 7})
    assert entry["reply_to"] == f"orc:{{acme}}:in:replies:{EXECUTION}:t1"
    assert entry["assign"] == [
        {
            "task_id": "compensate:t1",
            "agent_id": "worker-5",
            "role": "worker",
            "epoch": 3,
            "attempt": 2,
            "action": "undo",
            "input": {"n": 1},
            "timeout_seconds": 1,
            "compensates": {
                "task_id": "t1",
                "key": f"{EXECUTION}/t1",
                "result": {"seat": "4A"},
                "certain": False,
            },
        }
    ]
    assert desk.binder.asked[0].roles["worker"].capabilities == ("x",)
    assert line.sent[-1][1]["consumed"] == [["compensate:t1", 3, 2]]
    assert line.expiring == [entry["reply_to"]]


async def test_without_a_known_agent_the_one_that_did_the_step_undoes_it() -> None:
    line = FakeLine([event("completed")])
    await Desk(line).undo()
    assert line.sent[0][1]["assign"][0]["agent_id"] == "worker-2"


async def test_what_an_earlier_time_brought_is_not_asked_for_again() -> None:
    line = FakeLine(kept=[event("completed")])
    assert (await Desk(line).undo()).ok
    assert line.assigned() == []


async def test_an_agent_may_say_that_there_is_nothing_to_undo() -> None:
    outcome = await Desk(FakeLine([failed("NEVER_HAPPENED", retryable=False)])).undo()
    assert (outcome.ok, outcome.value) == (True, "never_happened")


@pytest.mark.parametrize("retryable", [True, False])
async def test_a_failure_says_whether_trying_again_may_help(retryable: bool) -> None:
    outcome = await Desk(FakeLine([failed("NO_ACCESS", retryable=retryable)])).undo()
    assert (outcome.ok, outcome.code, outcome.message) == (False, "NO_ACCESS", "no")
    assert outcome.value == (None if retryable else "final")


async def test_a_failure_without_a_reason_is_one() -> None:
    assert (await Desk(FakeLine([event("failed")])).undo()).code == "AGENT_ERROR"


async def test_reports_of_other_attempts_do_not_count() -> None:
    strangers = [event("completed", attempt=1), event("completed", epoch=2), event("completed", task_id="t1")]
    outcome = await Desk(FakeLine([*strangers, failed("NO")])).undo()
    assert outcome.code == "NO"


async def test_what_is_given_back_is_handed_out_again() -> None:
    line = FakeLine([event("returned")], [event("completed")])
    assert (await Desk(line).undo()).ok
    assert line.assigned() == ["host-1", "host-1"]


async def test_a_host_that_dies_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensation, "HOST_CHECK_SECONDS", 0.0)
    binder, hosts = FakeBinder("host-1"), FakeHosts("host-1")
    line = FakeLine([event("started")], [event("completed")])
    desk = Desk(line, binder, hosts)

    async def die() -> None:
        while not line.assigned():  # noqa: ASYNC110 - the fake has no event
            await asyncio.sleep(0.005)
        binder.hosts[:], hosts.names[:] = ["host-2"], ["host-2"]

    dying = asyncio.create_task(die())
    assert (await desk.undo()).ok
    await dying
    assert line.assigned() == ["host-1", "host-2"]


async def test_an_activity_that_is_done_again_goes_on_with_the_host_that_has_the_assignment() -> None:
    line = FakeLine([event("completed")])
    desk = Desk(line, FakeBinder("host-1"), FakeHosts("host-1", "host-9"))
    desk.environment.info = desk.environment.info.__class__(
        **{**desk.environment.info.__dict__, "heartbeat_details": ["host-9"]}
    )
    await desk.undo()
    assert line.assigned() == ["host-9"]


async def test_an_assignment_that_nobody_confirms_is_sent_again_and_given_up_at_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compensation, "RESEND_SECONDS", 0.05)
    monkeypatch.setattr(compensation, "UNCONFIRMED_SECONDS", 0.3)
    line = FakeLine()
    outcome = await Desk(line).undo()
    assert (outcome.ok, outcome.code, outcome.value) == (False, "NO_ANSWER", None)
    assert len(line.assigned()) > 1
    assert line.sent[-1][1]["cancel"] == [["compensate:t1", 3, 2]]


async def test_what_takes_longer_than_the_step_may_is_stopped() -> None:
    line = FakeLine([event("started")])
    outcome = await Desk(line).undo()
    assert outcome.code == "TASK_TIMEOUT"
    assert line.sent[-1][1]["cancel"] == [["compensate:t1", 3, 2]]


async def test_without_any_host_the_try_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensation, "HOST_WAIT_SECONDS", 0.05)
    line = FakeLine()
    outcome = await Desk(line, FakeBinder()).undo()
    assert (outcome.code, line.sent) == ("NO_HOST", [])


@pytest.mark.parametrize("task_id", ["plain", "nobody"])
async def test_a_task_that_cannot_be_undone_fails_for_good(task_id: str) -> None:
    outcome = await Desk(FakeLine()).undo(request(task_id))
    assert (outcome.ok, outcome.code, outcome.value) == (False, "TASK_UNKNOWN", "final")


async def test_a_server_that_is_away_lets_temporal_try_again() -> None:
    line = FakeLine()
    line.failure = UnavailableError("away")
    with pytest.raises(ApplicationError) as caught:
        await Desk(line).undo()
    assert not caught.value.non_retryable


async def test_retries_are_read_and_settled_in_the_store() -> None:
    desk = Desk(FakeLine())
    asked = RetryRequest(
        tenant="acme", execution_id=EXECUTION, workflow_id="w", trace_id="r", task_id="t1", request_id=EXECUTION
    )
    settled = RetryOutcome(tenant="acme", execution_id=EXECUTION, task_id="t1", attempt=2, ok=True)
    pending = await desk.environment.run(desk.activities.next_retry, asked)
    assert pending is not None
    await desk.environment.run(desk.activities.settle_retry, settled)
    assert desk.store.settled == [settled]
    desk.store.failure = NotFoundError("gone")
    for run in (
        desk.environment.run(desk.activities.next_retry, asked),
        desk.environment.run(desk.activities.settle_retry, settled),
    ):
        with pytest.raises(ApplicationError) as caught:
            await run
        assert caught.value.non_retryable


def test_the_longest_names_fit_the_protocol_and_stay_apart() -> None:
    names = ["x" * 255, "x" * 254 + "y", "x" * 246]
    found = {wire_task_id(name) for name in names}
    assert len(found) == 3
    assert all(len(name) <= 255 for name in found)
