"""What a committed tick puts into hosts' streams, seen through the server-side function that it calls."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import orjson
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.contracts.events import AuditEvent, AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import (
    Attempt,
    Delta,
    Done,
    Failed,
    Rewind,
    Settled,
    Submission,
    TaskResult,
    TickProposal,
)
from engine.contracts.views import ExecutionEvent
from engine.errors import UnavailableError
from engine.events import dispatch, keys
from engine.events.bodies import GrownBodies
from engine.events.dispatch import Dispatcher
from engine.events.functions import Functions
from engine.events.publisher import FactPublisher
from engine.ports import Committed, GraphStore, Published, StoredBody, TaskAddition
from tests.fakes.streams import FakeDispatchStore

EXECUTION = str(uuid4())


class FakeFunctions:
    """Takes `orc_write_tick` apart again. `published` is what the server says of the execution, when it says other."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, list[str], list[tuple[str, dict[str, Any]]]]] = []
        self.nudges: list[dict[str, Any]] = []
        self.packs: list[tuple[int, bytes]] = []
        self.published: int | None = None
        self.who = [EXECUTION, "w", "tr"]
        self.failure: Exception | None = None
        self.hangs = False

    async def ask(self, name: str, stream_keys: list[str], args: list[Any]) -> list[int]:
        assert name == "orc_write_tick"
        if self.failure is not None:
            raise self.failure
        if self.hangs:
            await asyncio.Event().wait()
        tick_key, partition, facts, *streams = stream_keys
        assert tick_key == keys.tick_key("t", EXECUTION)
        assert partition == keys.partition_stream("t", 3)
        assert facts == keys.facts_stream("t", 3)
        tick, _, group, channel, nudge, _, last, *who, packs, acks = args[:12]
        assert who == self.who
        assert group == keys.GROUP
        assert channel == keys.feed_channel("t", EXECUTION)
        self.nudges.append(orjson.loads(nudge))
        rest = args[12:]
        self.packs += zip(rest[: 2 * packs : 2], rest[1 : 2 * packs : 2], strict=True)
        rest = rest[2 * packs :]
        hosts = [stream.removeprefix("orc:{t}:tasks:") for stream in streams]
        documents = [(host, orjson.loads(body)) for host, body in zip(hosts, rest[acks:], strict=True)]
        self.writes.append((tick, list(rest[:acks]), documents))
        return [1, last if self.published is None else self.published]

    @property
    def documents(self) -> list[tuple[str, dict[str, Any]]]:
        return [document for _, _, documents in self.writes for document in documents]


class Desk:
    """A dispatcher with its surroundings, for an execution of `count` tasks, each but the first depending on `a0`."""

    def __init__(self, count: int = 3) -> None:
        self.functions = FakeFunctions()
        self.store = FakeDispatchStore()
        self.store.bodies[EXECUTION] = body(EXECUTION, count)
        self.dispatcher = Dispatcher(cast(Functions, self.functions), self.store)

    async def write(self, *ticks: Delta, own: bool = True, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
        before = len(self.functions.documents)
        values: dict[str, Any] = {"epoch": 1, "delta": ticks[0], "hosts": {"a-1": "h1", "a-2": "h2"}, **fields}
        proposal = TickProposal(
            tenant="t", execution_id=EXECUTION, workflow_id="w", trace_id="tr", tick=ticks[0].tick, base_tick=0,
            partition=3, **values,
        )  # fmt: skip
        committed = Committed(ticks=ticks, own=own, more=False, control=None, last_sequence=41, now_ms=1)
        await self.dispatcher.write(proposal, committed)
        return self.functions.documents[before:]


def body(execution_id: str, count: int) -> StoredBody:
    tasks: list[dict[str, Any]]
    tasks = [{"id": f"a{n}", "agent": "coder", "input": {"n": n}, "depends_on": ["a0"] if n else []}
             for n in range(count)]  # fmt: skip
    tasks[0] = {"id": "a0", "agent": "coder", "action": "open", "timeout_seconds": 7}
    return StoredBody(
        execution_id=execution_id, workflow_id="w", input_data={"in": 1}, definition={"tasks": tasks}, trace_id="tr"
    )


def assign(task_id: str, host_id: str = "h1", attempt: int = 1) -> Attempt:
    return Attempt(task_id=task_id, agent_id="a-1", attempt=attempt, host_id=host_id)


def done(task_id: str, agent_id: str = "a-1") -> Done:
    return Done(task_id=task_id, attempt=1, agent_id=agent_id, started_at_ms=1, at_ms=2)


def tick(number: int = 1, **fields: Any) -> Delta:
    return Delta(tick=number, at_ms=1, **fields)


async def test_an_assignment_says_all_that_an_agent_needs() -> None:
    [(host, document)] = await Desk().write(tick(assigned=(assign("a0"),)))
    assert host == "h1"
    assert document == {
        "v": 1, "execution_id": EXECUTION, "workflow_id": "w", "trace_id": "tr", "tick": 1,
        "reply_to": "orc:{t}:in:3", "input": {"in": 1}, "accepts": ["zlib"],
        "assign": [{"task_id": "a0", "agent_id": "a-1", "role": "coder", "epoch": 1, "attempt": 1, "action": "open",
                    "input": {}, "results": {}, "timeout_seconds": 7}],
    }  # fmt: skip


async def test_each_host_gets_one_entry_with_its_own() -> None:
    documents = await Desk().write(tick(assigned=(assign("a0"), assign("a1", "h2")), resent=(assign("a2"),)))
    assert [(host, [a["task_id"] for a in d["assign"]]) for host, d in documents] == [
        ("h1", ["a0", "a2"]), ("h2", ["a1"])]  # fmt: skip


async def test_many_assignments_go_in_entries_of_two_hundred_and_notices_in_the_first() -> None:
    assigned = tuple(assign(f"a{n}") for n in range(1, 451))
    documents = await Desk(500).write(tick(assigned=assigned, done=(done("a0"),)))
    assert [len(d["assign"]) for _, d in documents] == [200, 200, 50]
    assert [d.get("consumed") for _, d in documents] == [[["a0", 1, 1]], None, None]
    assert [a["task_id"] for _, d in documents for a in d["assign"]] == [f"a{n}" for n in range(1, 451)]


async def test_results_of_dependencies_come_from_memory_and_else_from_the_store() -> None:
    desk = Desk()
    results = (TaskResult(task_id="a0", attempt=1, result="fresh"),)
    [(_, document)] = await desk.write(tick(assigned=(assign("a1"),)), results=results)
    assert document["assign"][0]["results"] == {"a0": "fresh"}
    assert desk.store.asked == ["body"]
    other = Desk()
    other.store.stored["a0"] = "stored"
    by_reference = (TaskResult(task_id="a0", attempt=1, result_ref="sha256:1"),)
    [(_, document)] = await other.write(tick(assigned=(assign("a1"),)), results=by_reference)
    assert document["assign"][0]["results"] == {"a0": "stored"}
    assert other.store.asked == ["body", "results:a0"]


async def test_results_of_a_tick_that_was_not_stored_are_not_believed() -> None:
    desk = Desk()
    desk.store.stored["a0"] = "stored"
    results = (TaskResult(task_id="a0", attempt=1, result="proposed"),)
    [(_, document)] = await desk.write(tick(assigned=(assign("a1"),)), results=results, own=False)
    assert document["assign"][0]["results"] == {"a0": "stored"}


async def test_a_result_that_a_pattern_may_send_back_is_not_remembered_until_it_is_settled() -> None:
    desk = Desk()
    submission = Submission(task_id="a0", attempt=1, agent_id="a-1", at_ms=1, result="draft")
    judged = (TaskResult(task_id="a0", attempt=1, result="draft"),)
    [(_, document)] = await desk.write(tick(submitted=(submission,)), results=judged)
    assert document["consumed"] == [["a0", 1, 1]]
    desk.store.stored["a0"] = "final"
    [(_, document)] = await desk.write(tick(2, assigned=(assign("a1"),)))
    assert document["assign"][0]["results"] == {"a0": "final"}
    other = Desk()
    settled = (Settled(task_id="a0", verdict="accept"),)
    [(_, document)] = await other.write(tick(settled=settled, assigned=(assign("a1"),)), results=judged)
    assert document["assign"][0]["results"] == {"a0": "draft"}


async def test_what_is_stored_stands_in_the_context_that_an_agent_gets() -> None:
    desk = Desk()
    reference = await desk.store.put_payload("t", UUID(EXECUTION), b'{"large": true}')
    note = {"round": 2, "stored": {"result": reference}}
    attempts = (assign("a0").model_copy(update={"note": note}), assign("a1").model_copy(update={"note": "as it is"}))
    [(_, document)] = await desk.write(tick(assigned=attempts))
    assert [a["context"] for a in document["assign"]] == [{"round": 2, "result": {"large": True}}, "as it is"]


async def test_hosts_are_told_what_was_consumed_and_what_to_stop() -> None:
    failed = Failed(task_id="a1", attempt=1, agent_id="a-2", code="X", message="", at_ms=1)
    cancelled = (Attempt(task_id="a2", agent_id="a-2", attempt=4), Attempt(task_id="a2", agent_id="lost", attempt=1))
    documents = dict(
        await Desk().write(tick(done=(done("a0"), done("a2", "lost")), failed=(failed,)), cancel=cancelled)
    )
    assert documents["h1"]["consumed"] == [["a0", 1, 1]]
    assert documents["h2"]["consumed"] == [["a1", 1, 1]]
    assert documents["h2"]["cancel"] == [["a2", 1, 4]]


@pytest.mark.parametrize(
    ("status", "control"),
    [
        (ExecutionStatus.EXECUTING, "run"),
        (ExecutionStatus.PAUSED, "pause"),
        (ExecutionStatus.COMPLETED, "cancel"),
        (ExecutionStatus.FAILED, "cancel"),
        (ExecutionStatus.CANCELLED, "cancel"),
    ],
)
async def test_a_change_of_status_reaches_every_host_once(status: ExecutionStatus, control: str) -> None:
    documents = await Desk().write(tick(status=status), hosts={"a-1": "h1", "a-3": "h1", "a-2": "h2"})
    assert [(host, document["control"]) for host, document in documents] == [("h1", control), ("h2", control)]


async def test_back_in_planning_says_nothing() -> None:
    assert await Desk().write(tick(status=ExecutionStatus.PLANNING)) == []


async def test_a_rewind_stops_attempts_of_the_old_epoch_and_starts_those_of_the_new() -> None:
    rewind = Rewind(checkpoint_id="c", epoch=3, tasks=("a0",))
    cancel = (Attempt(task_id="a0", agent_id="a-1", attempt=2),)
    [(_, document)] = await Desk().write(tick(rewind=rewind, assigned=(assign("a0"),)), epoch=3, cancel=cancel)
    assert document["cancel"] == [["a0", 2, 2]]
    assert document["assign"][0]["epoch"] == 3


async def test_stored_ticks_are_redone_under_the_epoch_that_they_had() -> None:
    """The proposal of a run that fell behind knows nothing of a rewind that is stored."""
    rewind = Rewind(checkpoint_id="c", epoch=2, tasks=("a0",))
    ticks = (
        tick(1, assigned=(assign("a0"),)),
        tick(2, rewind=rewind, assigned=(assign("a0", attempt=2),)),
        tick(3, done=(done("a0"),)),
    )
    documents = await Desk().write(*ticks, own=False)
    assert [d["assign"][0]["epoch"] for _, d in documents[:2]] == [1, 2]
    assert documents[2][1]["consumed"] == [["a0", 2, 1]]


async def test_a_rewind_that_was_proposed_and_not_stored_does_not_count() -> None:
    desk = Desk()
    proposed = tick(1, rewind=Rewind(checkpoint_id="c", epoch=2, tasks=()))
    [(_, document)] = await desk.write(tick(1, assigned=(assign("a0"),)), own=False, delta=proposed, epoch=2)
    assert document["assign"][0]["epoch"] == 1


async def test_own_ticks_acknowledge_repeats_too_and_stored_ones_what_they_consumed() -> None:
    desk = Desk()
    await desk.write(tick(consumed=("1-0",)), acknowledge=("1-0", "0-9"))
    await desk.write(tick(consumed=("1-0",)), tick(2, consumed=("2-0",)), own=False, acknowledge=("7-0",))
    assert [acks for _, acks, _ in desk.functions.writes] == [["1-0", "0-9"], ["1-0"], ["2-0"]]


async def test_cancellations_belong_to_the_own_tick_only() -> None:
    documents = await Desk().write(
        tick(done=(done("a0"),)), own=False, cancel=(Attempt(task_id="a1", agent_id="a-1", attempt=1),)
    )
    assert "cancel" not in documents[0][1]


async def test_a_tick_that_has_nothing_to_say_to_hosts_still_tells_watchers() -> None:
    desk = Desk()
    assert await desk.write(tick()) == []
    assert desk.functions.nudges == [{"sequence": 41}]


async def test_watchers_are_told_with_every_tick_how_far_the_events_have_come() -> None:
    desk = Desk()
    await desk.write(tick(assigned=(assign("a0"),)))
    await desk.write(tick(2), tick(3), own=False)
    assert desk.functions.nudges == [{"sequence": 41}] * 3


async def test_what_rides_behind_its_dependency_is_told_so_and_finds_that_result_at_its_host() -> None:
    desk = Desk(2)
    behind = assign("a1").model_copy(update={"after": "a0"})
    [(_, document)] = await desk.write(tick(assigned=(assign("a0"), behind)))
    assert [(a["task_id"], a.get("after"), a["results"]) for a in document["assign"]] == [
        ("a0", None, {}), ("a1", "a0", {})]  # fmt: skip
    assert desk.store.asked == ["body"], "no result is looked up that cannot be there yet"


@pytest.mark.parametrize("failure", [RedisConnectionError("gone"), OSError("gone")])
async def test_without_redis_the_tick_is_to_be_tried_again(failure: Exception) -> None:
    desk = Desk()
    desk.functions.failure = failure
    with pytest.raises(UnavailableError):
        await desk.write(tick(consumed=("1-0",)), acknowledge=("1-0",))


async def test_a_hanging_redis_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "WRITE_TIMEOUT_SECONDS", 0.01)
    desk = Desk()
    desk.functions.hangs = True
    with pytest.raises(UnavailableError, match="TimeoutError"):
        await desk.write(tick(consumed=("1-0",)), acknowledge=("1-0",))


async def test_a_closed_execution_is_forgotten() -> None:
    desk = Desk()
    await desk.write(tick(assigned=(assign("a0"),)), results=(TaskResult(task_id="a0", attempt=1, result=1),))
    memory = desk.dispatcher._memory
    assert memory.bodies
    assert memory.results
    await desk.write(tick(2, status=ExecutionStatus.COMPLETED))
    assert (memory.bodies, memory.results, memory._tasks_held, memory._results_held) == ({}, {}, 0, 0)


def test_memory_is_bounded_over_all_executions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "BODIES_MAX", 3)
    monkeypatch.setattr(dispatch, "BODY_TASKS_MAX", 25)
    monkeypatch.setattr(dispatch, "RESULTS_MAX", 10)
    memory = dispatch._Memory()
    for n in range(5):
        memory.remember_body(str(n), body(str(n), 10))
        memory.learn(str(n), 1, {f"a{i}": i for i in range(4)})
        memory.learn(str(n), 1, {"a0": "again"})
    assert list(memory.bodies) == ["3", "4"]
    assert [key for key, _ in memory.results] == ["3", "4"]
    assert memory._results_held == 8
    memory.remember_body("huge", body("huge", 100))
    assert list(memory.bodies) == ["huge"], "the one in use stays, whatever its size"
    for n in range(5):
        memory.remember_body(str(n), body(str(n), 1))
    assert len(memory.bodies) == 3


class Growth:
    """A GraphStore that knows of two elements of `a1`."""

    async def describe(self, tenant: str, execution_id: Any, task_ids: Any) -> dict[str, TaskAddition]:
        elements = {f"a1[{n}]": TaskAddition(parent="a1", element=n, items_ref="r") for n in range(2)}
        return {name: elements.get(name, TaskAddition()) for name in task_ids}


async def test_elements_get_their_items_and_small_results_only() -> None:
    desk = Desk()
    desk.store.payloads["r"] = b'["x","y"]'
    desk.store.stored = {"a0": "large" * 2_000}
    grown = GrownBodies(desk.store, cast(GraphStore, Growth()))
    desk.dispatcher = Dispatcher(cast(Functions, desk.functions), desk.store, grown)
    delta = tick(assigned=(assign("a1[1]"), assign("a2"), assign("a1[7]")))
    [(_, document)] = await desk.write(delta, growth=1)
    first, second = document["assign"]
    assert (first["task_id"], first["action"], first["results"]) == ("a1[1]", "a1", {})
    assert first["input"] == {"n": 1, "item": "y", "index": 1}
    assert (second["task_id"], second["results"]) == ("a2", {"a0": "large" * 2_000})


FACTS = (AuditEvent(type=AuditEventType.TASK_STARTED, at_ms=0, payload={"task_id": "a0"}),)


class FakePublisher:
    def __init__(self) -> None:
        self.asked: list[tuple[Published, int]] = []
        self.failure: Exception | None = None

    async def catch_up(self, execution: Published, published: int) -> None:
        self.asked.append((execution, published))
        if self.failure is not None:
            raise self.failure


def publishing_desk() -> tuple[Desk, FakePublisher]:
    desk, publisher = Desk(), FakePublisher()
    desk.dispatcher = Dispatcher(
        cast(Functions, desk.functions), desk.store, publisher=cast(FactPublisher, publisher)
    )  # fmt: skip
    return desk, publisher


def committed_facts(**fields: Any) -> tuple[TickProposal, Committed]:
    delta = tick()
    proposal = TickProposal(
        tenant="t", execution_id=EXECUTION, workflow_id="w", trace_id="tr", tick=1, base_tick=0, partition=3, epoch=2,
        delta=delta, audit=FACTS,
    )  # fmt: skip
    values = {"ticks": (delta,), "own": True, "facts": (b'{"task_id":"a0"}',), **fields}
    return proposal, Committed(more=False, control=None, last_sequence=41, now_ms=1, **values)


async def test_a_ticks_facts_go_out_with_its_assignments() -> None:
    desk, publisher = publishing_desk()
    await desk.dispatcher.write(*committed_facts())
    assert desk.functions.packs == [(41, b'agent.task_started\t1970-01-01T00:00:00.000Z\t2\t{"task_id":"a0"}\n')]
    assert publisher.asked == []


async def test_an_executions_first_tick_publishes_what_was_there_before_it() -> None:
    desk, _ = publishing_desk()
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    planned = ExecutionEvent(
        sequence=40, epoch=1, event_type="workflow.status_changed", timestamp=moment, recorded_at=moment, payload={},
        trace_id=uuid4(),
    )  # fmt: skip
    await desk.dispatcher.write(*committed_facts(earlier=(planned,)))
    [(first, body)] = desk.functions.packs
    assert (first, [line.split(b"\t")[0] for line in body.splitlines()]) == (
        40, [b"workflow.status_changed", b"agent.task_started"])  # fmt: skip


async def test_facts_of_stored_ticks_are_fetched_from_the_log() -> None:
    desk, publisher = publishing_desk()
    desk.functions.published = 12
    proposal, committed = committed_facts(own=False, facts=())
    proposal = proposal.model_copy(update={"workflow_id": str(uuid4()), "trace_id": str(uuid4())})
    desk.functions.who = [EXECUTION, proposal.workflow_id, proposal.trace_id]
    await desk.dispatcher.write(proposal, committed)
    assert desk.functions.packs == []
    [(execution, published)] = publisher.asked
    assert (str(execution.execution_id), execution.last_sequence, published) == (EXECUTION, 41, 12)
    publisher.failure = UnavailableError("PostgreSQL does not answer")
    await desk.dispatcher.write(proposal, committed)
    assert len(publisher.asked) == 2
