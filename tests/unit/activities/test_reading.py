"""What programs of the coordination language may see beside their workflow's state."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest
from temporalio.exceptions import ApplicationError

from activities.reading import CONTEXT_BYTES_MAX, EVENT_BYTES_MAX, ReadingActivities
from engine.contracts.kernel import Errand, ErrandRequest
from engine.errors import UnavailableError
from engine.events.bodies import GrownBodies
from engine.ports import TaskAddition
from tests.unit.activities.test_evaluation import EXECUTION, Graphs, Store


def request(task_id: str = "b", **given: Any) -> ErrandRequest:
    errand = Errand(key="k", kind="program", task_id=task_id, input=given)
    return ErrandRequest(tenant="acme", execution_id=EXECUTION, workflow_id="w", trace_id="t", epoch=1, errand=errand)


class NoGraphs(Graphs):
    async def event_payloads(self, tenant: str, execution_id: UUID, event_ids: Sequence[str]) -> Mapping[str, Any]:
        raise UnavailableError("gone")


def reading(store: Store, graphs: Graphs | None = None) -> ReadingActivities:
    graphs = graphs or Graphs()
    return ReadingActivities(store, graphs, GrownBodies(store, graphs))


def store(**fields: Any) -> Store:
    made = Store({"id": "a"}, {"id": "b", "depends_on": ["a"]}, {"id": "c"}, **fields)
    made.stored = {"a": {"n": 1}, "c": 3}
    return made


async def test_a_program_sees_the_input_and_the_results_of_its_tasks_dependencies() -> None:
    outcome = await reading(store(input_data={"x": 1})).read_context(request(read=["input", "results"]))
    assert (outcome.key, outcome.ok) == ("k", True)
    assert outcome.value == {"input": {"x": 1}, "results": {"a": {"n": 1}}}


async def test_a_task_that_was_added_has_the_dependencies_that_came_with_it() -> None:
    graphs = Graphs()
    graphs.additions["new"] = TaskAddition(parent="a", body={"id": "new", "depends_on": ["c"]})
    outcome = await reading(store(), graphs).read_context(request("new", read=["results"]))
    assert outcome.value == {"results": {"c": 3}}


async def test_what_is_too_large_to_travel_is_an_error_that_says_so() -> None:
    outcome = await reading(store(input_data={"x": "y" * CONTEXT_BYTES_MAX})).read_context(request(read=["input"]))
    assert (outcome.ok, outcome.code) == (False, "CONTEXT_TOO_LARGE")
    graphs = Graphs()
    graphs.events["e"] = "y" * EVENT_BYTES_MAX
    outcome = await reading(store(), graphs).read_event(request(event_id="e"))
    assert (outcome.ok, outcome.code) == (False, "EVENT_TOO_LARGE")


async def test_the_payload_of_an_event_is_read() -> None:
    graphs = Graphs()
    graphs.events["e"] = {"n": 1}
    assert (await reading(store(), graphs).read_event(request(event_id="e"))).value == {"n": 1}


async def test_a_server_that_is_away_is_tried_again() -> None:
    away = store()
    away.failure = UnavailableError("gone")
    with pytest.raises(ApplicationError) as failed:
        await reading(away).read_context(request(read=["results"]))
    assert not failed.value.non_retryable
    with pytest.raises(ApplicationError):
        await reading(store(), NoGraphs()).read_event(request(event_id="e"))
