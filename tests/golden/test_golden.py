"""Every golden history replays against the present code; and a changed decision is noticed."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory

from engine.contracts import activity_names
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Delta, ExecutionInput, TickOutcome
from engine.temporal.connection import DATA_CONVERTER
from tests.golden import custom, handoffs_and_reviews, hierarchies, sagas, swarm_and_network
from workflows.kernel.state import RunState
from workflows.replay import replay_history

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))
COMMITTING = {activity_names.BEGIN_EXECUTION, activity_names.COMMIT_TICK}
BYTES_MAX = 128 * 1024


@dataclass
class Recorded:
    """What the runs of a scenario hold."""

    deltas: list[Delta] = field(default_factory=list)
    carried: list[RunState] = field(default_factory=list)
    """The state that each run but the first began with."""

    def assigned_at_once(self) -> list[list[str]]:
        return [[attempt.task_id for attempt in delta.assigned] for delta in self.deltas if delta.assigned]

    def ahead(self) -> set[str]:
        """Tasks that were sent before their dependencies were done."""
        return {attempt.task_id for delta in self.deltas for attempt in delta.assigned if attempt.after}


def _goes_ahead_without_chain(recorded: Recorded) -> bool:
    return bool(recorded.ahead() & {"d", "g"})


def _retries_the_rest_of_the_chain(recorded: Recorded) -> bool:
    failed = [item for delta in recorded.deltas for item in delta.failed if item.retry_at_ms is not None]
    return [item.task_id for item in failed] == ["t1"] and recorded.assigned_at_once() == [
        ["t0", "t1", "t2", "t3"], ["t1", "t2", "t3"]
    ]  # fmt: skip


BRANCHES: dict[str, Callable[[Recorded], bool]] = {
    "diamond": lambda r: r.deltas[-1].status is ExecutionStatus.COMPLETED,
    "slow_diamond_paused_and_resumed": lambda r: any(d.status is ExecutionStatus.PAUSED for d in r.deltas),
    "retried_and_given_up": lambda r: {f.retry_at_ms is None for d in r.deltas for f in d.failed} == {True, False},
    "timed_out": lambda r: any(d.error and d.error.error_code for d in r.deltas),
    "cancelled_in_temporal": lambda r: r.deltas[-1].status is ExecutionStatus.CANCELLED,
    "rewound": lambda r: any(d.rewind for d in r.deltas),
    "continued_as_new": lambda r: any(s.in_flight and s.riders and s.completed == 1 for s in r.carried),
    "continued_as_new_while_paused": lambda r: any(s.paused for s in r.carried) and any(d.returned for d in r.deltas),
    "continued_as_new_while_retries_wait": lambda r: any(len(s.delayed) == 2 for s in r.carried),
    "continued_as_new_while_an_event_is_awaited": lambda r: any(s.awaiting and s.kept for s in r.carried),
    "hosts_that_came_late": lambda r: not r.deltas[0].bound and any(d.bound for d in r.deltas),
    "fused_chain": lambda r: r.assigned_at_once() == [["t0", "t1", "t2", "t3"]],
    "fused_chain_that_fails_in_its_middle": _retries_the_rest_of_the_chain,
    "sent_ahead": _goes_ahead_without_chain,
    "conditions": lambda r: any("good" in d.passed for d in r.deltas) and any(d.admitted for d in r.deltas),
    "one_task_for_each_element": lambda r: any(d.expanded for d in r.deltas) and any(d.gathered for d in r.deltas),
    "triggered": lambda r: any(d.looked for d in r.deltas) and any(d.triggered for d in r.deltas),
    "triggers_that_time_out": lambda r: any(d.waited for d in r.deltas) and any(d.passed for d in r.deltas),
    "spawned_tasks_that_block": lambda r: any(s.blocks for d in r.deltas for s in d.spawned),
    "reused": lambda r: [t for d in r.deltas for t in d.reused] == ["a"],
    **swarm_and_network.BRANCHES,
    **hierarchies.BRANCHES,
    **sagas.BRANCHES,
    **custom.BRANCHES,
    **handoffs_and_reviews.BRANCHES,
}
"""What makes each scenario worth keeping. One that is recorded without it would guard nothing."""


def load(path: Path) -> WorkflowHistory:
    document = json.loads(path.read_text())
    return WorkflowHistory.from_json(document["workflow_id"], document["history"])


async def read(scenario: str) -> Recorded:
    """All runs of it, in order."""
    recorded = Recorded()
    for path in sorted((Path(__file__).parent / "histories").glob(f"*-{scenario}-[0-9]*.json")):
        history = load(path)
        begun = history.events[0].workflow_execution_started_event_attributes.input.payloads
        [launch] = await DATA_CONVERTER.decode(begun, [ExecutionInput])
        if launch.carry is not None:
            recorded.carried.append(RunState.restore(launch, launch.carry.state))
        for event in history.events:
            details = event.marker_recorded_event_attributes.details
            if "result" not in details:
                continue
            if json.loads(details["data"].payloads[0].data)["activity_type"] in COMMITTING:
                [outcome] = await DATA_CONVERTER.decode(details["result"].payloads, [TickOutcome])
                recorded.deltas.extend(Delta.model_validate_json(text) for text in outcome.ticks)
    return recorded


def test_each_history_is_of_a_scenario_and_small() -> None:
    assert {path.stem.split("-")[1] for path in HISTORIES} == BRANCHES.keys()
    assert max(path.stat().st_size for path in HISTORIES) < BYTES_MAX


@pytest.mark.parametrize("scenario", BRANCHES)
async def test_each_history_holds_the_branch_that_it_is_named_for(scenario: str) -> None:
    assert BRANCHES[scenario](await read(scenario))


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_the_present_code_replays_what_was_recorded(path: Path) -> None:
    replayed = await replay_history(load(path), DATA_CONVERTER)
    assert replayed.failure is None
    assert replayed.ok


async def test_a_history_that_the_code_would_not_have_made_is_noticed() -> None:
    """Its timer is gone: the code asks for one where the history goes on without."""
    document = json.loads(next(path for path in HISTORIES if "timed_out" in path.stem).read_text())
    events = document["history"]["events"]
    timer = next(event for event in events if event["eventType"] == "EVENT_TYPE_TIMER_STARTED")
    timer["eventType"] = "EVENT_TYPE_ACTIVITY_TASK_SCHEDULED"
    del timer["timerStartedEventAttributes"]
    timer["activityTaskScheduledEventAttributes"] = {"activityId": "1", "activityType": {"name": "something_else"}}
    history = WorkflowHistory.from_json(document["workflow_id"], document["history"])
    replayed = await replay_history(history, DATA_CONVERTER)
    assert replayed.failure is not None
    assert not replayed.ok
