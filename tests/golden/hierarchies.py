"""Scenarios of the hierarchical pattern."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from orchestration_agent.host import AgentHost
from tests.golden.waiting import lengthen
from tests.integration.engine.bench import Bench
from tests.integration.engine.hierarchies import NONE, TEAMS, hierarchy, play

FAILING: dict[str, Any] = {"id": "a", "input": {"fail": "broken"}, "retry_policy": NONE}


async def with_leads(bench: Bench) -> None:
    """Hosts whose leads answer as the execution's input says."""
    await bench.stop()
    await bench.start_host(AgentHost(play, bench.host_options))


async def solved_on_the_top_level(bench: Bench) -> UUID:
    await with_leads(bench)
    said = {"chief": {"decision": "escalate"}, "director": {"decision": "resolve", "result": 1}}
    return await bench.start(hierarchy(FAILING, {"id": "b", "depends_on": ["a"]}), said)


async def solved_by_nobody(bench: Bench) -> UUID:
    """The chief answers nonsense twice, the director passes it on to nobody."""
    await with_leads(bench)
    return await bench.start(hierarchy(FAILING), {"chief": "what?", "director": {"decision": "escalate"}})


async def given_to_another_with_a_changed_input(bench: Bench) -> UUID:
    await with_leads(bench)
    said = {"chief": {"decision": "reassign", "to": "chief", "input": {"x": 1}}}
    once = {**FAILING, "input": {"fail_times": 1}}
    return await bench.start(hierarchy(once, {"id": "b", "depends_on": ["a"]}), said)


async def a_branch_given_up_by_a_superior(bench: Bench) -> UUID:
    await with_leads(bench)
    said = {"chief": {"decision": "fail", "reason": "no use"}}
    return await bench.start(hierarchy(FAILING, {"id": "b", "depends_on": ["a"]}, {"id": "c"}), said)


async def delegated_by_the_lead(bench: Bench) -> UUID:
    await with_leads(bench)
    document = hierarchy({"id": "a"}, {"id": "b", "depends_on": ["a"]})
    document["pattern_config"]["teams"] = {**TEAMS, "crew": {**TEAMS["crew"], "delegation": "lead"}}
    return await bench.start(document, {"chief": {"to": "worker-1", "input": {"x": 1}}})


async def answered_at_length(bench: Bench) -> UUID:
    """The answer comes by reference, and an errand fetches it."""
    await with_leads(bench)
    return await bench.start(hierarchy(FAILING), {"chief": {"decision": "resolve", "result": "x" * 5_000}})


async def teams_over_several_runs(bench: Bench) -> UUID:
    execution_id = await bench.start(
        hierarchy({"id": "a", "input": {"duration_ms": 4_000}}, {"id": "b", "depends_on": ["a"]}), history_events_max=12
    )
    await bench.until_event(execution_id, "agent.task_started", task_id="a")
    await lengthen(bench, execution_id)
    return execution_id


SCENARIOS = (
    solved_on_the_top_level,
    solved_by_nobody,
    given_to_another_with_a_changed_input,
    a_branch_given_up_by_a_superior,
    delegated_by_the_lead,
    answered_at_length,
    teams_over_several_runs,
)


def _asked(recorded: Any) -> int:
    return sum(len(item.tasks) for delta in recorded.deltas for item in delta.asked)


def _verdicts(recorded: Any) -> list[str]:
    return [item.verdict for delta in recorded.deltas for item in delta.settled]


BRANCHES: dict[str, Callable[[Any], bool]] = {
    "solved_on_the_top_level": lambda r: _asked(r) == 2 and "resolve" in _verdicts(r),
    "solved_by_nobody": lambda r: any(f.retry_at_ms is None for d in r.deltas for f in d.failed) and _asked(r) > 0,
    "given_to_another_with_a_changed_input": lambda r: any(a.overlay for d in r.deltas for a in d.assigned),
    "a_branch_given_up_by_a_superior": lambda r: (
        any(d.skipped for d in r.deltas) and "c" in [item.task_id for d in r.deltas for item in d.done]
    ),
    "delegated_by_the_lead": lambda r: any(d.taken for d in r.deltas),
    "answered_at_length": lambda r: "judge" in [errand.kind for d in r.deltas for errand in d.errands],
    "teams_over_several_runs": lambda r: len(r.carried) > 0,
}
