"""Registered programs on the real engine: work really done, events really awaited, histories that replay."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from engine.contracts.dynamic import ExternalEvent
from engine.contracts.execution import ExecutionStatus
from engine.contracts.patterns.language import PatternRegistration
from orchestration_agent.host import AgentHost
from orchestration_agent.task import Task, TaskFailed
from planner.language.check import parse_registration
from planner.language.templates import template_text
from planner.parse import parse_text
from tests.integration.engine.bench import Bench, definition, types

Agent = Callable[[Task], Awaitable[Any]]


async def start(
    bench: Bench,
    logic: dict[str, Any],
    *tasks: dict[str, Any],
    config: dict[str, Any] | None = None,
    roles: tuple[str, ...] = (),
    input_data: dict[str, Any] | None = None,
    **options: Any,
) -> UUID:
    """As the gateway does it: the program goes with the launch."""
    parse_registration(PatternRegistration(name="p", version="1", coordination_logic=logic))
    document = definition(
        *(tasks or ({"id": "t"},)), agents=3,
        orchestration_pattern="custom", pattern={"name": "p", "version": "1"},
    )  # fmt: skip
    document["agents"] |= {role: {"type": "synthetic", "count": 1} for role in roles}
    launch = await bench.plan_row(document, input_data, **options)
    program = {"name": "p", "version": "1", "config": config or {}, "logic": logic}
    await bench.launcher.launch(launch.model_copy(update={"pattern_config": program}))
    return UUID(launch.execution_id)


async def with_agent(bench: Bench, agent: Agent, slots: int = 8) -> AgentHost:
    """This instead of the synthetic one."""
    await bench.stop()
    return await bench.start_host(AgentHost(agent, replace(bench.host_options, host_id="", slots=slots)))


def template(name: str) -> dict[str, Any]:
    logic: dict[str, Any] = parse_text(template_text(name) or "")["coordination_logic"]
    return logic


async def result(bench: Bench, execution_id: UUID, task_id: str = "t") -> Any:
    return (await bench.stores.dispatch.results(bench.tenant, execution_id, [task_id]))[task_id]


async def test_map_reduce_reads_the_input_and_puts_the_parts_together(bench: Bench) -> None:
    async def agent(task: Task) -> Any:
        if task.action == "map":
            if task.input["part"] == "bad":
                raise TaskFailed("no", retryable=False)
            return len(task.input["part"])
        return {"sum": sum(task.input["parts"]), "of": len(task.input["parts"])}

    await with_agent(bench, agent)
    config = {"over": "words", "mappers": "worker", "reducer": "chief", "tolerated_failures": 1}
    execution_id = await start(
        bench, template("map-reduce"), config=config, roles=("chief",),
        input_data={"words": ["one", "three", "bad", "seven"]},
    )  # fmt: skip
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    assert await result(bench, execution_id) == {"sum": 13, "of": 3}
    await bench.assert_replays(execution_id)


async def test_a_review_loop_brings_the_tasks_own_work_back_with_feedback(bench: Bench) -> None:
    async def agent(task: Task) -> Any:
        if task.action == "review":
            approved = len(task.input["draft"]) >= 3
            return {"approved": approved, "feedback": None if approved else "longer"}
        return [*(["more"] if task.context["feedback"] else []), *range(task.context["round"])]

    await with_agent(bench, agent)
    execution_id = await start(
        bench, template("review-loop"), {"id": "a"}, {"id": "b", "depends_on": ["a"]},
        config={"reviewer": "chief", "rounds": 3}, roles=("chief",),
    )  # fmt: skip
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    assert await result(bench, execution_id, "b") == ["more", 0, 1]
    assert types(await bench.events(execution_id), "a").count("agent.task_assigned") == 2
    await bench.assert_replays(execution_id)


async def test_a_debate_is_judged_by_vote(bench: Bench) -> None:
    async def agent(task: Task) -> Any:
        if task.action == "argue":
            return {"for": "tea" if task.agent_id == "worker-1" else "coffee", "heard": len(task.input["heard"])}
        votes = [said["says"]["for"] for said in task.input["said"]]
        return {"vote": max(sorted(set(votes)), key=votes.count)}

    await with_agent(bench, agent)
    execution_id = await start(
        bench, template("debate"), config={"debaters": "worker", "judges": "chief", "rounds": 2}, roles=("chief",)
    )
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    decided = await result(bench, execution_id)
    assert decided["decision"] == "coffee"
    assert [said["says"]["heard"] for said in decided["said"]] == [3, 3, 3]
    assert "vote.counted" in types(await bench.events(execution_id), "t")
    await bench.assert_replays(execution_id)


WAITING: dict[str, Any] = {
    "start": "ring",
    "states": {
        "ring": {"do": "wait", "event": "bell", "when": "event.n >= config.least", "save": "heard", "seconds": 300,
                 "next": "tell"},
        "tell": {"do": "assign", "action": "'tell'", "input": "heard", "save": "told", "next": "end"},
        "end": {"do": "finish", "result": "told"},
    },
}  # fmt: skip


async def test_an_event_from_outside_ends_a_wait_and_its_payload_goes_on(bench: Bench) -> None:
    async def agent(task: Task) -> Any:
        return {"told": task.input["n"]}

    await with_agent(bench, agent)
    execution_id = await start(bench, WAITING, config={"least": 2})
    for n in (1, 2, 3):
        event = ExternalEvent(event_id=f"e{n}", type="bell", at_ms=1, payload={"n": n})
        await bench.launcher.signal(bench.tenant, execution_id, "external_event", event)
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    assert await result(bench, execution_id) == {"told": 2}
    await bench.assert_replays(execution_id)


LONG: dict[str, Any] = {
    "start": "rounds",
    "variables": {"log": []},
    "states": {
        "rounds": {"do": "loop", "max": 12, "body": "ask", "next": "end"},
        "ask": {"do": "gather", "each": "range(3)", "input": "{n: item, round: loops.rounds}", "save": "found",
                "next": "note"},
        "note": {"do": "set", "values": {"log": "log + [sum(map(found, f => f.result))]"}, "next": "rounds"},
        "end": {"do": "finish", "result": "log"},
    },
}  # fmt: skip


async def test_a_program_outlives_pause_continue_as_new_and_the_loss_of_its_host(bench: Bench) -> None:
    begun: set[str] = set()

    async def agent(task: Task) -> Any:
        begun.add(task.task_id)
        await asyncio.sleep(0.06)  # longer than a tick lingers, so that there is a history
        return task.input["n"] * task.input["round"]

    host = await with_agent(bench, agent, slots=2)
    execution_id = await start(bench, LONG, history_events_max=12)
    await bench.until(lambda: _is_at_least(begun, 6), "two rounds have begun")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED, ExecutionStatus.COMPLETED)
    await bench.ask(execution_id, "resume")
    host.stop()
    await bench.start_host(AgentHost(agent, replace(bench.host_options, host_id="", slots=2)))
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    assert await result(bench, execution_id) == [3 * n for n in range(1, 13)]
    assert await bench.assert_replays(execution_id) > 1


async def _is_at_least(seen: set[str], least: int) -> bool:
    return len(seen) >= least


async def test_a_program_that_cannot_go_on_fails_its_task_and_says_where(bench: Bench) -> None:
    logic = {"start": "a", "states": {"a": {"do": "finish", "result": "1 / config.zero"}}}
    execution_id = await start(bench, logic, config={"zero": 0})
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.FAILED
    assert view.error_details is not None
    assert view.error_details["details"]["code"] == "EXPRESSION_DIVISION"
    assert "state a of the pattern" in view.error_details["error_message"]
    await bench.assert_replays(execution_id)


async def test_work_has_its_own_action_and_its_tasks_input_and_dependencies(bench: Bench) -> None:
    logic = {
        "start": "ask",
        "states": {
            "ask": {"do": "assign", "action": "'ask'", "input": "{more: task.id}", "save": "told", "next": "end"},
            "end": {"do": "finish", "result": "told"},
        },
    }

    async def agent(task: Task) -> Any:
        return [task.action, task.input, task.results]

    await with_agent(bench, agent)
    execution_id = await start(
        bench, logic, {"id": "a", "action": "other", "input": {"k": 1}}, {"id": "b", "depends_on": ["a"]}
    )
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    first = await result(bench, execution_id, "a")
    assert first == ["ask", {"k": 1, "more": "a"}, {}]
    assert await result(bench, execution_id, "b") == ["ask", {"more": "b"}, {"a": first}]
