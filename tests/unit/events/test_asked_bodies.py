"""Tasks that a pattern asked for like another: they get that one's input, dependencies and action."""

from typing import Any, cast
from uuid import uuid4

from engine.events.bodies import GrownBodies
from engine.events.dispatch import _told_to_members
from engine.ports import DispatchStore, GraphStore, TaskAddition

PLANNED: dict[str, dict[str, Any]] = {
    "before": {"id": "before"},
    "ask": {
        "id": "ask",
        "agent": "worker",
        "depends_on": ["before"],
        "input": {"hint": 1, "mine": 2},
        "action": "choose",
    },
    "plain": {"id": "plain", "agent": "worker"},
}


class Asked:
    """A GraphStore that knows of tasks that a pattern asked for."""

    def __init__(self, **bodies: dict[str, Any]) -> None:
        self.bodies = {f"{name}[0]": body for name, body in bodies.items()}

    async def describe(self, tenant: str, execution_id: Any, task_ids: Any) -> dict[str, TaskAddition]:
        return {name: TaskAddition(body=self.bodies[name]) for name in task_ids if name in self.bodies}


async def bodies_of(**asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    grown = GrownBodies(cast(DispatchStore, None), cast(GraphStore, Asked(**asked)))
    return await grown.of("acme", str(uuid4()), PLANNED, [f"{name}[0]" for name in asked])


async def test_they_get_what_the_task_gets_for_whose_sake_they_are() -> None:
    asked = {"id": "ask[0]", "agent": "worker", "action": "ask", "input": {"mine": 3}, "about": "ask"}
    found = (await bodies_of(ask=asked))["ask[0]"]
    assert found["input"] == {"hint": 1, "mine": 3}, "their own input goes before"
    assert (found["depends_on"], found["action"]) == (["before"], "choose")


async def test_where_that_task_says_nothing_they_have_what_they_were_asked_with() -> None:
    asked = {"id": "plain[0]", "agent": "worker", "action": "plain", "input": {}, "about": "plain"}
    found = (await bodies_of(plain=asked))["plain[0]"]
    assert (found["input"], found["depends_on"], found["action"]) == ({}, [], "plain")
    gone = (await bodies_of(plain={**asked, "about": "nothing"}))["plain[0]"]
    assert gone["depends_on"] == []


async def test_others_stay_as_they_are() -> None:
    asked = {"id": "ask[0]", "agent": "worker", "action": "look", "input": {"a": 1}}
    assert (await bodies_of(ask=asked))["ask[0]"] == asked


def test_members_of_a_task_get_its_dependencies_results_unless_that_is_too_much_together() -> None:
    results = {"small": 1, "large": "x" * 100_000}
    assert _told_to_members(results, 0) is results
    assert _told_to_members(results, 10) is results
    assert _told_to_members(results, 1_000) == {"small": 1}


async def test_work_within_a_task_has_its_input_and_dependencies_and_an_action_of_its_own() -> None:
    asked = {"id": "ask[0]", "agent": "worker", "action": "look", "input": {"mine": 3}, "within": "ask"}
    found = (await bodies_of(ask=asked))["ask[0]"]
    assert (found["input"], found["depends_on"], found["action"]) == ({"hint": 1, "mine": 3}, ["before"], "look")
    gone = (await bodies_of(plain={**asked, "within": "nothing"}))["plain[0]"]
    assert (gone["input"], gone["depends_on"]) == ({"mine": 3}, [])
