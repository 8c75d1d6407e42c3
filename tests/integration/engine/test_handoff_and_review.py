"""Handoffs and a reviewing supervisor on the real engine: through pauses, new runs, and the death of a worker."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from engine.concurrency import end_all, run_together
from engine.contracts.execution import ExecutionStatus
from engine.temporal.launcher import TemporalLauncher
from orchestration_agent.host import AgentHost
from orchestration_agent.task import Task
from tests.integration.engine.bench import Bench, definition, types
from worker import WORKFLOWS, build

Agent = Callable[[Task], Awaitable[Any]]

LARGE = "words " * 2_000
"""More than travels inline."""


def handoff(*tasks: dict[str, Any], agents: int = 2, **config: Any) -> dict[str, Any]:
    document = definition(*tasks, agents=agents, orchestration_pattern="handoff", pattern_config=config)
    document["agents"]["expert"] = {"type": "synthetic", "count": 1}
    return document


def reviewed(*tasks: dict[str, Any], agents: int = 2, **config: Any) -> dict[str, Any]:
    document = definition(*tasks, agents=agents, pattern_config={"review": {"agent": "lead"}, **config})
    document["agents"]["lead"] = {"type": "synthetic", "count": 1}
    return document


async def with_agent(bench: Bench, agent: Agent) -> AgentHost:
    """This instead of the synthetic one."""
    await bench.stop()
    return await bench.start_host(AgentHost(agent, replace(bench.host_options, host_id="")))


async def result(bench: Bench, execution_id: UUID, task_id: str) -> Any:
    return (await bench.stores.dispatch.results(bench.tenant, execution_id, [task_id]))[task_id]


def steps(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": f"s{n}", "depends_on": [f"s{n - 1}"] if n else [], **fields} for n in range(count)]


async def test_the_context_grows_from_hand_to_hand_and_what_gates_refuse_goes_back(bench: Bench) -> None:
    seen: list[tuple[str, int, Any]] = []

    async def agent(task: Task) -> Any:
        seen.append((task.task_id, task.attempt, task.context))
        if task.role == "expert":
            return {"context": {"answer": task.input["question"] + "!", "large": None}}
        if task.task_id == "ask":
            return {"context": {"large": LARGE}, "words": 1 if task.attempt == 1 else 3, "handoff_to": "expert"}
        return {"context": {"last": task.context["context"]["answer"], "results": sorted(task.results)}}

    await with_agent(bench, agent)
    document = handoff(
        {"id": "ask", "input": {"question": "why"}},
        {"id": "tell", "depends_on": ["ask"]},
        context={"topic": "rivers"},
        stations={"ask": {"to": ["expert"], "gate": {"expressions": ["result.words == null or result.words > 2"]}}},
    )
    execution_id = await bench.start(document)
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    assert [(name, attempt) for name, attempt, _ in seen] == [("ask", 1), ("ask", 2), ("ask-hand-2", 1), ("tell", 1)]
    assert "not so" in seen[1][2]["feedback"][0]["feedback"]
    assert seen[2][2]["context"] == {"topic": "rivers", "large": LARGE}
    assert seen[3][2]["context"] == {"topic": "rivers", "answer": "why!"}
    assert [entry["agent"] for entry in seen[3][2]["history"]] == ["worker-1", "expert-1"]
    assert await result(bench, execution_id, "ask") == {"context": {"answer": "why!", "large": None}}
    assert (await result(bench, execution_id, "tell"))["context"]["results"] == ["ask"]
    told = types(await bench.events(execution_id))
    assert (told.count("handoff.accepted"), told.count("handoff.rejected")) == (3, 1)
    await bench.assert_replays(execution_id)


async def test_a_handoff_rolls_back_to_the_agent_before_on_the_real_engine(bench: Bench) -> None:
    async def agent(task: Task) -> Any:
        if task.action == "draft":
            again = bool(task.context["feedback"])
            return {"context": {"text": "good" if again else "bad", "seen": task.input["seed"]}}
        return {"context": {"checked": True}, "good": task.context["context"]["text"] == "good"}

    await with_agent(bench, agent)
    document = handoff(
        {"id": "write", "action": "draft", "input": {"seed": 7}},
        {"id": "check", "depends_on": ["write"]},
        stations={"check": {"rejections_max": 0, "gate": {"expressions": ["result.good"]}}},
    )
    execution_id = await bench.start(document)
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    events = await bench.events(execution_id)
    assert types(events).count("handoff.rolled_back") == 1
    assert types(events, "write-again-1").count("task.completed") == 1
    assert (await result(bench, execution_id, "write-again-1"))["context"] == {"text": "good", "seen": 7}


async def test_a_handoff_with_a_judge_lasts_through_pauses_and_new_runs(bench: Bench) -> None:
    async def agent(task: Task) -> Any:
        if task.role == "expert":
            first = task.context["result"]["context"]["n"] % 3 == 0 and not task.task_id.endswith("-2")
            return {"verdict": "reject" if first else "accept", "feedback": "once more"}
        await asyncio.sleep(0.05)
        return {"context": {"n": int(task.task_id[1:]), f"of_{task.task_id}": task.attempt}}

    await with_agent(bench, agent)
    document = handoff(*steps(12), gate={"judge": {"agent": "expert"}, "expressions": ["result.context.n >= 0"]})
    execution_id = await bench.start(document, history_events_max=6)
    await bench.until_event(execution_id, "handoff.accepted", task_id="s2")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.ask(execution_id, "resume")
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    events = await bench.events(execution_id)
    accepted = [event.payload["task_id"] for event in events if event.event_type == "handoff.accepted"]
    assert accepted == [f"s{n}" for n in range(12)]
    assert types(events).count("handoff.rejected") == 4
    last = await bench.until_event(execution_id, "agent.task_assigned", task_id="s11")
    assert last.payload["attempt"] == 1
    assert await bench.assert_replays(execution_id) > 1


async def test_a_review_sends_back_reassigns_and_adds_tasks(bench: Bench) -> None:
    seen: dict[str, Any] = {}

    async def agent(task: Task) -> Any:
        seen[f"{task.task_id}/{task.attempt}"] = (task.agent_id, task.context, task.results)
        if task.role != "lead":
            return {"text": LARGE, "attempt": task.attempt}
        about = task.context["task"]
        if about == "a":
            answers = [
                {"verdict": "reject", "feedback": "too long"},
                {"verdict": "reassign", "feedback": "let another try"},
                {"verdict": "spawn", "tasks": [{"id": "extra", "agent": "worker", "blocks": ["b"]}]},
            ]
            return answers[task.context["result"]["attempt"] - 1]
        return {"verdict": "accept"}

    await with_agent(bench, agent)
    execution_id = await bench.start(reviewed({"id": "a"}, {"id": "b", "depends_on": ["a"]}))
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    assert seen["a/2"][1]["feedback"][0]["feedback"] == "too long"
    assert seen["a/2"][1]["result"]["text"] == LARGE
    assert seen["a/3"][0] != seen["a/2"][0]
    assert seen["b/1"][2]["a"]["attempt"] == 3
    assert (await result(bench, execution_id, "a"))["attempt"] == 3
    events = await bench.events(execution_id)
    ended = [e.payload["task_id"] for e in events
             if e.event_type == "task.completed" and e.payload["status"] == "success"]  # fmt: skip
    assert ended.index("extra") < ended.index("b")
    assert [e.payload["verdict"] for e in events if e.event_type == "review.given"] == [
        "reject", "reassign", "spawn", "accept", "accept"]  # fmt: skip
    await bench.assert_replays(execution_id)


async def test_reviews_last_through_a_pause_and_new_runs(bench: Bench) -> None:
    async def agent(task: Task) -> Any:
        await asyncio.sleep(0.05)
        if task.role == "lead":
            return {"verdict": "accept" if task.context["attempt"] > 1 else "reject"}
        return task.attempt

    await with_agent(bench, agent)
    document = reviewed(*[{"id": f"t{n}"} for n in range(20)], strategy="round_robin", max_in_flight=2)
    execution_id = await bench.start(document, history_events_max=6)
    await bench.until_event(execution_id, "review.given", verdict="accept")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.ask(execution_id, "resume")
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    assert {await result(bench, execution_id, f"t{n}") for n in range(20)} == {2}
    assert await bench.assert_replays(execution_id) > 1


async def test_round_robin_and_weights_run_a_graph_on_the_real_engine(bench: Bench) -> None:
    for config in ({"strategy": "round_robin"}, {"strategy": "weighted"}, {"max_in_flight": 1}):
        execution_id = await bench.start(definition(*steps(6), *_wide(30), agents=3, pattern_config=config))
        view = await bench.until_closed(execution_id)
        assert view.status is ExecutionStatus.COMPLETED, view.error_details
        used = {e.payload["agent_id"] for e in await bench.events(execution_id) if e.event_type == "task.completed"}
        assert used == {"worker-1", "worker-2", "worker-3"}
        await bench.assert_replays(execution_id)


def _wide(count: int) -> list[dict[str, Any]]:
    return [{"id": f"w{n}", "input": {"duration_ms": 5}} for n in range(count)]


async def test_a_handoff_and_a_review_go_on_in_another_worker_when_theirs_has_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def agent(task: Task) -> Any:
        await asyncio.sleep(0.05)
        if task.role == "lead":
            return {"verdict": "accept" if task.context["attempt"] > 1 else "reject"}
        return {"context": {task.task_id: task.attempt}}

    await with_agent(bench, agent)
    own = bench.settings.model_copy(update={"task_queue": "handoff-and-review"})
    monkeypatch.setattr(bench, "launcher", TemporalLauncher(bench.client, own))
    gate = {"json_schema": {"type": "object", "required": ["context"]}}
    async with AsyncExitStack() as stack:
        first = asyncio.create_task(run_together(await build(own, frozenset({WORKFLOWS}), stack)))
        ids = [await bench.start(handoff(*steps(10), gate=gate)), await bench.start(reviewed(*steps(5)))]
        for execution_id in ids:
            await bench.until_event(execution_id, "task.completed", task_id="s1", status="success")
        await end_all([first])
    for execution_id in ids:
        assert not (await bench.status(execution_id)).status.closed
    async with AsyncExitStack() as stack:
        second = asyncio.create_task(run_together(await build(own, frozenset({WORKFLOWS}), stack)))
        for execution_id in ids:
            view = await bench.until_closed(execution_id)
            assert view.status is ExecutionStatus.COMPLETED, view.error_details
            ends = [(e.payload["task_id"], e.payload["attempt"]) for e in await bench.events(execution_id)
                    if e.event_type == "task.completed" and e.payload["status"] == "success"]  # fmt: skip
            assert len(set(ends)) == len(ends), "no end counts twice"
        await end_all([second])
    for execution_id in ids:
        await bench.assert_replays(execution_id)
