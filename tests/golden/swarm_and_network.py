"""Scenarios of the swarm and the network, and what makes each worth keeping."""

from typing import Any
from uuid import UUID

from tests.golden.waiting import lengthen
from tests.integration.engine.bench import Bench, definition


def swarm(task_input: dict[str, Any], agents: int = 3, **config: Any) -> dict[str, Any]:
    task = {"id": "ask", "input": task_input}
    return definition(task, agents=agents, orchestration_pattern="swarm", pattern_config=config)


def network(task_input: dict[str, Any], agents: int = 3, **config: Any) -> dict[str, Any]:
    task = {"id": "talk", "input": task_input}
    return definition(task, agents=agents, orchestration_pattern="network", pattern_config=config)


async def swarm_that_proposes_and_decides(bench: Bench) -> UUID:
    return await bench.start(swarm({"result": "red"}, proposals="first", voting={"rule": "unanimous"}))


async def swarm_that_does_not_decide(bench: Bench) -> UUID:
    """What the synthetic agents answer by themselves is no vote."""
    return await bench.start(swarm({}, rounds_max=3, convergence={"rounds": 9}, on_undecided="complete"))


async def swarm_whose_rounds_end_by_time(bench: Bench) -> UUID:
    """Each vote comes a round late, until the last one."""
    return await bench.start(
        swarm({"result": "red", "duration_ms": 1_500}, rounds_max=2, round_seconds=1, on_undecided="complete")
    )


async def swarm_continued_as_new(bench: Bench) -> UUID:
    """In the second round: the first one's votes are remembered, the members are at work."""
    document = swarm({"duration_ms": 2_500}, rounds_max=2, on_undecided="complete")
    execution_id = await bench.start(document, history_events_max=12)
    await bench.until_event(execution_id, "vote.counted")
    await lengthen(bench, execution_id)
    return execution_id


async def network_until_its_messages_are_used_up(bench: Bench) -> UUID:
    answer = {"state": 1, "messages": [{"to": "*", "body": 1}]}
    return await bench.start(network({"result": answer}, messages_max=6))


async def network_with_a_deadline(bench: Bench) -> UUID:
    return await bench.start(network({"duration_ms": 60_000}, seconds=1))


async def network_continued_as_new(bench: Bench) -> UUID:
    answer = {"state": 1, "messages": [{"to": "*", "body": 1}]}
    document = network({"result": answer, "duration_ms": 1_500}, messages_max=12, topology={"kind": "ring"})
    execution_id = await bench.start(document, history_events_max=12)
    await bench.until_event(execution_id, "message.sent")
    await lengthen(bench, execution_id)
    return execution_id


SCENARIOS = (
    swarm_that_proposes_and_decides,
    swarm_that_does_not_decide,
    swarm_whose_rounds_end_by_time,
    swarm_continued_as_new,
    network_until_its_messages_are_used_up,
    network_with_a_deadline,
    network_continued_as_new,
)


def _phases(recorded: Any, task_id: str) -> list[str]:
    """What the first member was told, note after note."""
    notes = (delta.posted.get(f"{task_id}[0]/note") for delta in recorded.deltas)
    return [note["phase"] for note in notes if note]


def _rounds(recorded: Any) -> set[int]:
    return {a.note["round"] for delta in recorded.deltas for a in delta.assigned if a.note}


BRANCHES = {
    "swarm_that_proposes_and_decides": lambda r: _phases(r, "ask") == ["propose", "vote"],
    "swarm_that_does_not_decide": lambda r: _rounds(r) == {1, 2, 3},
    "swarm_whose_rounds_end_by_time": lambda r: _rounds(r) == {1, 2},
    "swarm_continued_as_new": lambda r: any("ask/v/1/0" in s.board and s.in_flight for s in r.carried),
    "network_until_its_messages_are_used_up": lambda r: sum(len(d.assigned) for d in r.deltas) > 3,
    "network_with_a_deadline": lambda r: any(delta.cancelled for delta in r.deltas),
    "network_continued_as_new": lambda r: any("talk/net" in s.board and s.in_flight for s in r.carried),
}
