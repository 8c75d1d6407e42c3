"""Swarms and networks on the real engine: agents really asked, votes in the audit log, histories that replay."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from engine.contracts.execution import ExecutionStatus
from engine.contracts.streams import partition_of
from engine.contracts.voting import VotingRule
from engine.events.keys import partition_stream
from engine.voting.recounting import recount
from orchestration_agent.host import AgentHost
from orchestration_agent.task import Task
from tests.integration.engine.bench import Bench, definition, types

Agent = Callable[[Task], Awaitable[Any]]


def swarm(*tasks: dict[str, Any], agents: int = 3, **config: Any) -> dict[str, Any]:
    return definition(*tasks, agents=agents, orchestration_pattern="swarm", pattern_config=config)


def network(*tasks: dict[str, Any], agents: int = 3, **config: Any) -> dict[str, Any]:
    return definition(*tasks, agents=agents, orchestration_pattern="network", pattern_config=config)


async def with_agent(bench: Bench, agent: Agent, slots: int = 8) -> AgentHost:
    """This instead of the synthetic one."""
    await bench.stop()
    return await bench.start_host(AgentHost(agent, replace(bench.host_options, host_id="", slots=slots)))


async def result(bench: Bench, execution_id: Any, task_id: str) -> Any:
    return (await bench.stores.dispatch.results(bench.tenant, execution_id, [task_id]))[task_id]


async def test_a_swarm_votes_in_rounds_and_its_decision_is_the_tasks_result(bench: Bench) -> None:
    seen: dict[str, Any] = {}

    async def member(task: Task) -> Any:
        seen[task.task_id] = (task.action, task.input, task.results, task.context)
        if task.task_id == "first[0]":
            return {"vote": "red"}
        if task.context["round"] == 1:
            return {"vote": ["red", "blue", "green"][int(task.agent_id[-1]) - 1], "reason": "my favourite"}
        return {"vote": "red"}

    await with_agent(bench, member)
    document = swarm(
        {"id": "first", "agent": "lone"},
        {"id": "colour", "depends_on": ["first"], "input": {"hint": 7}, "action": "choose"},
        options=["red", "blue", "green"],
        convergence={"rounds": 3},
    )
    document["agents"]["lone"] = {"type": "synthetic", "count": 1}
    execution_id = await bench.start(document)
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    decided = await result(bench, execution_id, "colour")
    assert (decided["decision"], decided["rounds"]) == ("red", 2)
    action, task_input, results, context = seen["colour[0]"]
    assert action == "choose"
    assert task_input["hint"] == 7
    assert task_input["swarm"]["options"] == ["red", "blue", "green"]
    assert results["first"]["decision"] == "red", "members get the results of the question's dependencies"
    assert context == {
        "round": 2, "phase": "vote", "own": "red", "seen": {"worker-2": "blue", "worker-3": "green"}
    }  # fmt: skip
    events = await bench.events(execution_id)
    assert types(events, "colour").count("vote.cast") == 6
    assert types(events, "colour").count("vote.counted") == 2
    await bench.assert_replays(execution_id)


async def test_a_swarm_outlives_pause_continue_as_new_and_the_loss_of_its_host(bench: Bench) -> None:
    async def member(task: Task) -> Any:
        return {"vote": "b" if task.context["round"] == 3 else task.agent_id}

    await with_agent(bench, member, slots=1)
    document = swarm({"id": "ask"}, agents=6, rounds_max=3, convergence={"rounds": 5})
    execution_id = await bench.start(document, history_events_max=12)
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED, ExecutionStatus.COMPLETED)
    await with_agent(bench, member, slots=2)
    await bench.ask(execution_id, "resume")
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    votes = [e.payload for e in await bench.events(execution_id) if e.event_type == "vote.cast"]
    assert sorted((v["round"], v["agent_id"]) for v in votes) == [
        (r, f"worker-{n}") for r in (1, 2, 3) for n in range(1, 7)
    ]
    assert (await result(bench, execution_id, "ask"))["decision"] == "b"
    await bench.assert_replays(execution_id)


async def test_a_thousand_agents_decide_in_one_workflow_in_under_ten_seconds(bench: Bench) -> None:
    document = swarm(
        {"id": "ask", "input": {"result": {"vote": "yes"}}}, agents=1_000, voting={"rule": "supermajority"}
    )
    began, worked = time.monotonic(), time.process_time()
    execution_id = await bench.start(document)
    view = await bench.until_closed(execution_id)
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - worked
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    decided = await result(bench, execution_id, "ask")
    assert (decided["decision"], decided["voted"]) == ("yes", 1_000)
    assert seconds < 10 or cpu_seconds < 5, "where other work keeps the machine busy, its own work is what counts"
    await bench.assert_replays(execution_id)


async def test_peers_of_a_network_exchange_messages_until_all_is_quiet(bench: Bench) -> None:
    """A gossip average on a ring: with each turn a peer moves towards what it hears."""

    async def peer(task: Task) -> Any:
        told, about = task.context, task.input["network"]
        number = int(task.agent_id.rpartition("-")[2])
        state = told["state"] or {"heard": 0, "sum": 0}
        if not told["messages"]:
            return {"state": state, "messages": [{"to": "*", "body": number}]}
        heard = [message["body"] for message in told["messages"]]
        assert {message["from"] for message in told["messages"]} <= set(about["neighbours"])
        return {"state": {"heard": state["heard"] + len(heard), "sum": state["sum"] + sum(heard)}}

    await with_agent(bench, peer)
    execution_id = await bench.start(network({"id": "talk"}, agents=5, topology={"kind": "ring"}))
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    ended = await result(bench, execution_id, "talk")
    assert ended["ended"] == "quiescence"
    assert ended["messages"] == 10
    assert ended["states"] == {f"worker-{n}": {"heard": 2, "sum": (n % 5 + 1) + ((n - 2) % 5 + 1)} for n in range(1, 6)}
    await bench.assert_replays(execution_id)


async def test_a_network_survives_continue_as_new_and_delivers_everything_once(bench: Bench) -> None:
    """Each peer passes a counter on; what was lost or repeated would change the sum."""

    async def peer(task: Task) -> Any:
        seen = (task.context["state"] or 0) + len(task.context["messages"])
        counters = [message["body"] for message in task.context["messages"]] or [0]
        nexts = task.input["network"]["neighbours"]
        messages = [{"to": nexts[-1], "body": counter + 1} for counter in counters if counter < 20]
        return {"state": seen, "messages": messages}

    await with_agent(bench, peer, slots=1)
    document = network({"id": "pass"}, agents=4, topology={"kind": "ring"})
    execution_id = await bench.start(document, history_events_max=12)
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED, view.error_details
    ended = await result(bench, execution_id, "pass")
    assert ended["messages"] == 4 * 20
    assert sum(ended["states"].values()) == 80
    await bench.assert_replays(execution_id)


async def test_kept_votes_are_counted_again_without_the_agents(bench: Bench) -> None:
    async def member(task: Task) -> Any:
        return {"vote": {"worker-1": "a", "worker-2": "b", "worker-3": "b"}.get(task.agent_id, "c")}

    await with_agent(bench, member)
    document = swarm({"id": "ask"}, {"id": "too"}, agents=5, rounds_max=2, on_undecided="complete")
    execution_id = await bench.start(document)
    await bench.until_closed(execution_id)
    await bench.stop()
    executions = bench.stores.executions
    kept = await executions.counted_rounds(bench.tenant, execution_id, task_id=None, round_number=None, limit=10)
    assert [(item.task_id, item.round, item.recorded["decision"]) for item in kept] == [
        ("ask", 2, None),
        ("too", 2, None),
    ]
    again = recount(kept[0], VotingRule(rule="quorum", tie_break="lowest"), str(execution_id))
    assert again.recounted["decision"] == "b"
    assert again.dissent == ("worker-1", "worker-4", "worker-5")
    (first,) = await executions.counted_rounds(bench.tenant, execution_id, task_id="too", round_number=1, limit=10)
    assert (first.round, len(first.votes)) == (1, 5)
    none = await executions.counted_rounds(bench.tenant, execution_id, task_id="other", round_number=None, limit=10)
    assert none == []


async def test_votes_by_strangers_twice_and_late_are_refused_and_recorded(bench: Bench) -> None:
    """Whoever can write to the stream can claim to be anybody; only the attempt that was handed out counts."""
    released = asyncio.Event()

    async def member(task: Task) -> Any:
        if task.agent_id == "worker-3":
            await released.wait()
        return {"vote": "a"}

    await with_agent(bench, member)
    execution_id = await bench.start(swarm({"id": "ask"}, options=["a", "b"], voting={"rule": "quorum"}))
    await bench.until_event(execution_id, "vote.cast", agent_id="worker-1")
    await bench.until_event(execution_id, "vote.cast", agent_id="worker-2")

    def vote(task_id: str, agent_id: str, attempt: int) -> dict[str, Any]:
        return {"type": "agent.task_completed", "task_id": task_id, "agent_id": agent_id, "epoch": 1,
                "attempt": attempt, "at_ms": int(time.time() * 1000), "result": {"vote": "b"}}  # fmt: skip

    forged = [
        vote("ask[2]", "stranger-1", 1),
        vote("ask[2]", "worker-1", 1),
        vote("ask[7]", "worker-3", 1),
        vote("ask[0]", "worker-1", 1),
        vote("ask[2]", "worker-3", 0),
    ]
    stream = partition_stream(bench.tenant, partition_of(str(execution_id), bench.settings.event_partitions))
    await bench.redis.xadd(stream, {"x": str(execution_id), "b": json.dumps(forged)})

    async def refused() -> list[Any]:
        found = [e.payload for e in await bench.events(execution_id) if e.event_type == "task.late_result_refused"]
        return found if len(found) >= 4 else []

    recorded = await bench.until(refused, "the forged votes are refused")
    assert {(r["task_id"], r["agent_id"]) for r in recorded} >= {
        ("ask[2]", "stranger-1"), ("ask[2]", "worker-1"), ("ask[7]", "worker-3"), ("ask[2]", "worker-3")
    }  # fmt: skip
    released.set()
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    decided = await result(bench, execution_id, "ask")
    assert decided["tally"] == [{"choice": "a", "weight": 3}]
    assert types(await bench.events(execution_id)).count("vote.cast") == 3


async def test_what_a_swarm_decided_is_compensated_when_a_later_question_fails(bench: Bench) -> None:
    undone: list[str] = []

    async def member(task: Task) -> Any:
        if task.action == "take_back":
            undone.append(task.task_id)
            return None
        return {"vote": task.agent_id if task.task_id.startswith("later") else "yes"}

    await with_agent(bench, member)
    document = swarm(
        {"id": "first", "compensation_action": "take_back"}, {"id": "later", "depends_on": ["first"]}, rounds_max=1
    )
    execution_id = await bench.start(document)
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.FAILED
    events = await bench.events(execution_id)
    assert [e.payload["task_id"] for e in events if e.event_type == "saga.compensation_completed"] == ["first"]
    assert undone
    await bench.assert_replays(execution_id)
