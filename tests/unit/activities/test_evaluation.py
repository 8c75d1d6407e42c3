"""The activity that finds out what the kernel must not compute itself."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
import pytest

import activities.evaluation
from activities.evaluation import EvaluationActivities
from engine.contracts.dynamic import Candidate, Evaluation, EvaluationRequest, TaskOutcome
from engine.contracts.views import TaskResultView
from engine.errors import NotFoundError, TooLargeError, UnavailableError
from engine.events.bodies import GrownBodies
from engine.ports import CachedResult, StoredBody, TaskAddition

EXECUTION = "00000000-0000-4000-8000-000000000001"


class Store:
    """A DispatchStore of one execution."""

    def __init__(self, *tasks: dict[str, Any], input_data: dict[str, Any] | None = None) -> None:
        self.tasks = [{"agent": "worker", **task} for task in tasks]
        self.input_data = input_data or {}
        self.stored: dict[str, Any] = {}
        self.payloads: dict[str, bytes] = {}
        self.bodies_read = 0
        self.bytes_max = 1_000_000
        self.failure: Exception | None = None

    async def body(self, tenant: str, execution_id: UUID) -> StoredBody:
        self.bodies_read += 1
        definition = {"tasks": self.tasks, "agents": {"worker": {"type": "synthetic"}}}
        return StoredBody(
            execution_id=EXECUTION, workflow_id="w", input_data=self.input_data, definition=definition, trace_id="t"
        )

    async def results(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        return {name: self.stored[name] for name in task_ids if name in self.stored}

    async def result(self, tenant: str, execution_id: UUID, task_id: str) -> TaskResultView:
        raise NotFoundError("not asked for")

    async def put_payload(self, tenant: str, execution_id: UUID, payload: bytes) -> str:
        if len(payload) > self.bytes_max:
            raise TooLargeError("too large")
        reference = f"sha256:{len(self.payloads)}"
        self.payloads[reference] = payload
        return reference

    async def payload(self, tenant: str, execution_id: UUID, reference: str) -> bytes:
        return self.payloads[reference]


class Graphs:
    """A GraphStore."""

    def __init__(self) -> None:
        self.additions: dict[str, TaskAddition] = {}
        self.events: dict[str, Any] = {}
        self.cached: dict[str, CachedResult] = {}
        self.keys: dict[str, str] = {}

    async def describe(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> Mapping[str, TaskAddition]:
        return {name: self.additions.get(name, TaskAddition()) for name in task_ids}

    async def event_payloads(self, tenant: str, execution_id: UUID, event_ids: Sequence[str]) -> Mapping[str, Any]:
        return {name: self.events[name] for name in event_ids if name in self.events}

    async def take_results(
        self, tenant: str, execution_id: UUID, keys: Mapping[str, str], days: float
    ) -> Mapping[str, CachedResult]:
        self.keys.update(keys)
        return {name: self.cached[key] for name, key in keys.items() if key in self.cached}


class Desk:
    def __init__(self, *tasks: dict[str, Any], **fields: Any) -> None:
        self.store = Store(*tasks, **fields)
        self.graphs = Graphs()
        bodies = GrownBodies(self.store, self.graphs)
        self.activities = EvaluationActivities(self.store, self.graphs, bodies, 7.0)

    async def ask(self, *task_ids: str, matches: Sequence[Candidate] = (), room: int = 10_000) -> Evaluation:
        request = EvaluationRequest(
            tenant="acme", execution_id=EXECUTION, epoch=3, room=room, tasks=task_ids, matches=tuple(matches)
        )
        answer = await self.activities.evaluate_tasks(request)
        assert answer.epoch == 3
        return answer

    async def outcome(self, task_id: str, **fields: Any) -> TaskOutcome:
        (found,) = (await self.ask(task_id, **fields)).tasks
        return found


@pytest.mark.parametrize(
    ("when", "decision", "code"),
    [
        ("results.a.n > 1", "run", ""),
        ("results.a.n > 5", "skip", ""),
        ("results.b == null", "run", ""),
        ("input.wanted", "run", ""),
        ("results.a.n", "fail", "EXPRESSION_TYPE"),
        ("results.a.n >", "fail", "EXPRESSION_SYNTAX"),
    ],
)
async def test_a_condition_is_evaluated_over_input_and_results(when: str, decision: str, code: str) -> None:
    desk = Desk({"id": "a"}, {"id": "t", "depends_on": ["a", "b"], "when": when}, input_data={"wanted": True})
    desk.store.stored = {"a": {"n": 2}}
    found = await desk.outcome("t")
    assert (found.decision, found.code) == (decision, code)


async def test_a_list_is_stored_and_its_length_answered() -> None:
    desk = Desk({"id": "a"}, {"id": "t", "depends_on": ["a"], "for_each": "results.a"})
    desk.store.stored = {"a": [1, {"x": 2}]}
    found = await desk.outcome("t")
    assert (found.decision, found.size) == ("expand", 2)
    assert orjson.loads(desk.store.payloads[found.items_ref or ""]) == [1, {"x": 2}]


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ("abc", "FOR_EACH_NOT_A_LIST", "for_each gave a string, not a list"),
        (None, "FOR_EACH_NOT_A_LIST", "for_each gave null, not a list"),
        ({}, "FOR_EACH_NOT_A_LIST", "for_each gave an object, not a list"),
        ([1, 2, 3], "FOR_EACH_TOO_LONG", "for_each gave 3 elements"),
    ],
)
async def test_what_cannot_be_gone_through_fails_the_task(value: Any, code: str, message: str) -> None:
    desk = Desk({"id": "t", "for_each": "input.items"}, input_data={"items": value})
    found = await desk.outcome("t", room=2)
    assert (found.decision, found.code) == ("fail", code)
    assert message in found.message


async def test_a_list_that_is_too_large_to_store_fails_the_task() -> None:
    desk = Desk({"id": "t", "for_each": "input.items"}, input_data={"items": ["x" * 100]})
    desk.store.bytes_max = 10
    assert (await desk.outcome("t")).code == "FOR_EACH_TOO_LARGE"


async def test_lists_of_one_call_share_the_room_that_is_left() -> None:
    tasks = [{"id": f"t{n}", "for_each": "input.items"} for n in range(2)]
    desk = Desk(*tasks, input_data={"items": [1, 2]})
    answer = await desk.ask("t0", "t1", room=3)
    assert [found.decision for found in answer.tasks] == ["expand", "fail"]


async def test_an_empty_list_needs_no_store() -> None:
    desk = Desk({"id": "t", "for_each": "input.items"}, input_data={"items": []})
    assert (await desk.outcome("t")).items_ref is None
    assert desk.store.payloads == {}


async def test_an_element_runs_without_being_asked_again() -> None:
    desk = Desk({"id": "t", "for_each": "input.items", "when": "false", "reuse": True})
    desk.store.payloads["r"] = b"[7,8]"
    desk.graphs.additions["t[1]"] = TaskAddition(parent="t", element=1, items_ref="r")
    desk.graphs.additions["t[0]"] = TaskAddition(parent="t", element=0, items_ref="r")
    answer = await desk.ask("t[0]", "t[1]")
    assert [found.decision for found in answer.tasks] == ["run", "run"]
    assert len(set(desk.graphs.keys.values())) == 2, "their inputs differ by the element"


async def test_a_task_of_which_nothing_is_known_fails() -> None:
    assert (await Desk().outcome("t")).code == "TASK_UNKNOWN"


async def test_an_equal_task_gives_its_result_and_equal_is_what_the_agent_would_get() -> None:
    task = {"id": "t", "depends_on": ["a"], "reuse": True, "input": {"x": 1}}
    desk = Desk({"id": "a"}, task)
    desk.store.stored = {"a": 1}
    assert (await desk.outcome("t")).decision == "run"
    desk.graphs.cached[desk.graphs.keys["t"]] = CachedResult(result={"y": 2})
    found = await desk.outcome("t")
    assert (found.decision, found.result) == ("reuse", {"y": 2})
    desk.store.stored = {"a": 2}
    assert (await desk.outcome("t")).decision == "run"
    other = Desk({"id": "a"}, task, input_data={"z": 1})
    other.graphs.cached = desk.graphs.cached
    other.store.stored = {"a": 1}
    assert (await other.outcome("t")).decision == "run"


async def test_a_trigger_takes_an_event_for_which_its_condition_holds() -> None:
    triggers = [{"event": "go", "when": "event.n > results.a"}, {"event": "go", "when": "event.n.m.o > 1"}]
    desk = Desk({"id": "a"}, {"id": "t", "depends_on": ["a"], "triggers": triggers})
    desk.store.stored = {"a": 3}
    desk.graphs.events = {"e1": {"n": 4}, "e2": {"n": 2}}
    wanted = [
        Candidate(task_id="t", trigger=0, event_id="e1"),
        Candidate(task_id="t", trigger=0, event_id="e2"),
        Candidate(task_id="t", trigger=1, event_id="e1"),
        Candidate(task_id="t", trigger=5, event_id="e1"),
        Candidate(task_id="gone", trigger=0, event_id="e1"),
    ]
    answer = await desk.ask(matches=wanted)
    assert [match.matched for match in answer.matches] == [True, False, False, False, False]


async def test_what_is_not_reached_in_time_is_left_to_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities.evaluation, "EVALUATION_SECONDS_MAX", -1.0)
    desk = Desk({"id": "a"}, {"id": "b"})
    matches = [Candidate(task_id="a", trigger=n, event_id="e") for n in range(2)]
    answer = await desk.ask("a", "b", matches=matches)
    assert [found.task_id for found in answer.tasks] == ["a"]
    assert len(answer.matches) == 1


async def test_definitions_are_read_once_and_forgotten_in_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities.evaluation, "BODIES_MAX", 1)
    desk = Desk({"id": "a"})
    await desk.ask("a")
    await desk.ask("a")
    assert desk.store.bodies_read == 1
    other = EvaluationRequest(
        tenant="acme", execution_id="00000000-0000-4000-8000-000000000002", epoch=1, room=1, tasks=("a",)
    )
    await desk.activities.evaluate_tasks(other)
    await desk.ask("a")
    assert desk.store.bodies_read == 3


async def test_an_outage_is_tried_again() -> None:
    desk = Desk({"id": "a", "depends_on": ["b"]})
    desk.store.failure = UnavailableError("PostgreSQL does not answer")
    with pytest.raises(Exception, match="does not answer") as caught:
        await desk.ask("a")
    assert not getattr(caught.value, "non_retryable", True)


# Bodies -------------------------------------------------------------------------------------------------------------


async def bodies_of(desk: Desk, *names: str) -> dict[str, Any]:
    planned = {task["id"]: task for task in desk.store.tasks}
    return await GrownBodies(desk.store, desk.graphs).of("acme", EXECUTION, planned, names)


async def test_an_element_has_its_item_and_index_and_its_groups_action() -> None:
    desk = Desk({"id": "t", "input": {"x": 1}})
    desk.store.payloads["r"] = b'["a","b"]'
    desk.graphs.additions["t[1]"] = TaskAddition(parent="t", element=1, items_ref="r", has_event=True, event="now")
    found = (await bodies_of(desk, "t[1]"))["t[1]"]
    assert found["input"] == {"x": 1, "event": "now", "item": "b", "index": 1}
    assert found["action"] == "t"


async def test_an_added_task_has_its_own_body_and_a_blocked_one_waits_for_it() -> None:
    desk = Desk({"id": "t", "depends_on": ["a"]})
    desk.graphs.additions["n"] = TaskAddition(parent="a", body={"id": "n", "agent": "worker"})
    desk.graphs.additions["t"] = TaskAddition(waits_for=("n",))
    found = await bodies_of(desk, "n", "t")
    assert found["n"] == {"id": "n", "agent": "worker"}
    assert found["t"]["depends_on"] == ["a", "n"]


async def test_what_is_no_more_is_left_out() -> None:
    desk = Desk({"id": "t"})
    desk.store.payloads["r"] = b'["a"]'
    desk.graphs.additions["t[3]"] = TaskAddition(parent="t", element=3, items_ref="r")
    desk.graphs.additions["t[4]"] = TaskAddition(parent="t", element=4)
    assert await bodies_of(desk, "gone", "t[3]", "t[4]") == {}


async def test_lists_in_memory_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.events.bodies.LISTS_BYTES_MAX", 8)
    desk = Desk({"id": "t"}, {"id": "u"})
    desk.store.payloads = {"r": b'["a"]', "s": b'["b"]'}
    desk.graphs.additions = {
        "t[0]": TaskAddition(parent="t", element=0, items_ref="r"),
        "u[0]": TaskAddition(parent="u", element=0, items_ref="s"),
    }
    planned = {task["id"]: task for task in desk.store.tasks}
    bodies = GrownBodies(desk.store, desk.graphs)
    for name, item in (("t[0]", "a"), ("u[0]", "b"), ("u[0]", "b"), ("t[0]", "a")):
        found = await bodies.of("acme", EXECUTION, planned, [name])
        assert found[name]["input"]["item"] == item
