"""Scenarios of the handoff, of reviews, and of strategies that remember who did what."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from orchestration_agent.host import AgentHost
from orchestration_agent.task import Task
from tests.golden.waiting import lengthen
from tests.integration.engine.bench import Bench, definition


async def with_agent(bench: Bench, agent: Callable[[Task], Awaitable[Any]]) -> None:
    await bench.stop()
    await bench.start_host(AgentHost(agent, replace(bench.host_options, host_id="")))


def handoff(*tasks: dict[str, Any], **config: Any) -> dict[str, Any]:
    document = definition(*tasks, orchestration_pattern="handoff", pattern_config=config)
    document["agents"]["expert"] = {"type": "synthetic", "count": 1}
    return document


def reviewed(*tasks: dict[str, Any], **config: Any) -> dict[str, Any]:
    document = definition(*tasks, pattern_config={"review": {"agent": "lead"}, **config})
    document["agents"]["lead"] = {"type": "synthetic", "count": 1}
    return document


async def handed_over_refused_and_rolled_back(bench: Bench) -> UUID:
    """The writer hands over to an expert; what is checked is refused twice, and the expert does it again."""

    async def agent(task: Task) -> Any:
        if task.action == "check":
            return {"good": task.context["context"].get("text") == "good"}
        if task.role == "expert":
            return {"context": {"text": "good" if task.context["feedback"] else "bad"}}
        return {"context": {"title": "A title"}, "handoff_to": "expert"}

    await with_agent(bench, agent)
    gate = {"expressions": ["result.good"], "json_schema": {"type": "object"}}
    stations = {"write": {"to": ["expert"]}, "check": {"rejections_max": 1, "gate": gate}}
    tasks = ({"id": "write", "action": "write"}, {"id": "check", "action": "check", "depends_on": ["write"]})
    return await bench.start(handoff(*tasks, stations=stations))


async def handoff_continued_as_new(bench: Bench) -> UUID:
    """While a judging agent looks at what was handed over."""

    async def agent(task: Task) -> Any:
        if task.role == "expert":
            await asyncio.sleep(2.5)
            return {"verdict": "accept"}
        return {"context": {task.task_id: task.attempt}}

    await with_agent(bench, agent)
    tasks = ({"id": "a"}, {"id": "b", "depends_on": ["a"]})
    document = handoff(*tasks, stations={"a": {"gate": {"judge": {"agent": "expert"}}}})
    execution_id = await bench.start(document, history_events_max=12)
    await bench.until_event(execution_id, "task.submitted", task_id="a")
    await lengthen(bench, execution_id)
    return execution_id


async def reviewed_sent_back_reassigned_and_added_to(bench: Bench) -> UUID:
    async def agent(task: Task) -> Any:
        if task.role != "lead":
            return task.attempt
        answers: dict[Any, Any] = {
            ("a", 1): {"verdict": "reject", "feedback": "not yet"},
            ("a", 2): {"verdict": "reassign"},
            ("a", 3): {"verdict": "spawn", "tasks": [{"id": "c", "agent": "worker", "blocks": ["b"]}]},
            ("c", 1): "nonsense" if task.task_id == "c-review-1" else {"verdict": "accept"},
        }
        return answers.get((task.context["task"], task.context["attempt"]), {"verdict": "accept"})

    await with_agent(bench, agent)
    return await bench.start(reviewed({"id": "a"}, {"id": "b", "depends_on": ["a"]}))


async def review_continued_as_new(bench: Bench) -> UUID:
    """While the supervisor looks at a result."""

    async def agent(task: Task) -> Any:
        if task.role == "lead":
            await asyncio.sleep(2.5)
            return {"verdict": "accept"}
        return task.attempt

    await with_agent(bench, agent)
    execution_id = await bench.start(reviewed({"id": "a"}), history_events_max=12)
    await bench.until_event(execution_id, "task.submitted", task_id="a")
    await lengthen(bench, execution_id)
    return execution_id


async def shared_out_by_turns_and_continued_as_new(bench: Bench) -> UUID:
    """Whose turn it is, is carried on."""
    tasks = [{"id": f"t{n}", "input": {"duration_ms": 2_500 if n == 3 else 50}} for n in range(5)]
    config = {"strategy": "round_robin", "max_in_flight": 1}
    document = definition(*tasks, agents=3, pattern_config=config)
    execution_id = await bench.start(document, history_events_max=12)
    await bench.until_event(execution_id, "agent.task_started", task_id="t3")
    await lengthen(bench, execution_id)
    return execution_id


SCENARIOS = (
    handed_over_refused_and_rolled_back,
    handoff_continued_as_new,
    reviewed_sent_back_reassigned_and_added_to,
    review_continued_as_new,
    shared_out_by_turns_and_continued_as_new,
)


def _verdicts(recorded: Any) -> list[str]:
    return [item.verdict for delta in recorded.deltas for item in delta.settled]


def _asked(recorded: Any) -> list[str]:
    return [task.id for delta in recorded.deltas for item in delta.asked for task in item.tasks]


BRANCHES: dict[str, Callable[[Any], bool]] = {
    "handed_over_refused_and_rolled_back": lambda r: (
        {"write-hand-2", "write-again-1"} <= set(_asked(r)) and "again" in _verdicts(r) and "resolve" in _verdicts(r)
    ),
    "handoff_continued_as_new": lambda r: any(s.submitted and s.in_flight for s in r.carried),
    "reviewed_sent_back_reassigned_and_added_to": lambda r: _verdicts(r).count("again") == 2 and "c" in _asked(r),
    "review_continued_as_new": lambda r: any(s.submitted and s.in_flight for s in r.carried),
    "shared_out_by_turns_and_continued_as_new": lambda r: any(s.turns >= 4 for s in r.carried),
}
