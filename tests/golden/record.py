"""Record the golden histories anew: `python -m pytest tests/golden/record.py`.

Run it after adding a branch, never to make a failing replay pass: a history that does not replay means that running
executions would break.
"""

import json
import re
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from engine.contracts.dynamic import ExternalEvent
from engine.contracts.execution import ExecutionStatus
from tests.golden import custom, handoffs_and_reviews, hierarchies, sagas, swarm_and_network
from tests.golden.waiting import lengthen
from tests.integration.engine.bench import DIAMOND, Bench, chain, definition

pytest_plugins = ["tests.integration.engine.conftest"]

HISTORIES = Path(__file__).parent / "histories"
Scenario = Callable[[Bench], Coroutine[Any, Any, UUID]]


async def diamond(bench: Bench) -> UUID:
    return await bench.start(definition(*DIAMOND))


async def slow_diamond_paused_and_resumed(bench: Bench) -> UUID:
    execution_id = await bench.start(definition(*[{**task, "input": {"duration_ms": 100}} for task in DIAMOND]))
    await bench.until_event(execution_id, "agent.task_assigned", task_id="a")
    await bench.handle(execution_id).signal("pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.handle(execution_id).signal("resume")
    return execution_id


async def retried_and_given_up(bench: Bench) -> UUID:
    policy = {"max_attempts": 2, "initial_delay_seconds": 0.05}
    tasks: list[dict[str, Any]] = [{"id": "a", "input": {"fail": "broken"}, "retry_policy": policy}, {"id": "b"}]
    return await bench.start(definition(*tasks))


async def timed_out(bench: Bench) -> UUID:
    return await bench.start(definition({"id": "a", "input": {"duration_ms": 60_000}}), timeout=1)


async def cancelled_in_temporal(bench: Bench) -> UUID:
    execution_id = await bench.start(definition({"id": "a", "input": {"duration_ms": 60_000}}))
    await bench.until_event(execution_id, "agent.task_started", task_id="a")
    await bench.handle(execution_id).cancel()
    return execution_id


async def rewound(bench: Bench) -> UUID:
    tasks = chain(3)
    tasks[1]["input"] = {"duration_ms": 2_500}
    execution_id = await bench.start(definition(*tasks, agents=1))
    await bench.until_event(execution_id, "agent.task_started", task_id="t1")
    await bench.ask(execution_id, "checkpoint")
    first = await bench.until_event(execution_id, "workflow.checkpoint_created", reason="requested")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.until_event(execution_id, "task.completed", task_id="t1")
    await bench.ask(execution_id, "resume", first.payload["checkpoint_id"])
    return execution_id


async def continued_as_new(bench: Bench) -> UUID:
    """In the middle of a chain: one task of it is done, one runs, the others ride behind it."""
    tasks = chain(4)
    tasks[1]["input"] = {"duration_ms": 4_000}
    execution_id = await bench.start(definition(*tasks, agents=1), history_events_max=12)
    await bench.until_event(execution_id, "agent.task_started", task_id="t1")
    await lengthen(bench, execution_id)
    return execution_id


async def continued_as_new_while_paused(bench: Bench) -> UUID:
    """A chain that is broken off by the pause: what has not begun comes back."""
    tasks = chain(3)
    tasks[0]["input"] = {"duration_ms": 2_500}
    execution_id = await bench.start(definition(*tasks, agents=1), history_events_max=12)
    await bench.until_event(execution_id, "agent.task_started", task_id="t0")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.until_event(execution_id, "task.completed", task_id="t0")
    await lengthen(bench, execution_id)
    await bench.ask(execution_id, "resume")
    return execution_id


async def continued_as_new_while_retries_wait(bench: Bench) -> UUID:
    policy = {"max_attempts": 2, "initial_delay_seconds": 3}
    tasks = [{"id": name, "input": {"fail_times": 1}, "retry_policy": policy} for name in ("a", "b")]
    execution_id = await bench.start(definition(*tasks), history_events_max=12)
    for name in ("a", "b"):
        await bench.until_event(execution_id, "task.retry_scheduled", task_id=name)
    await lengthen(bench, execution_id)
    return execution_id


async def continued_as_new_while_an_event_is_awaited(bench: Bench) -> UUID:
    """One event is kept for a trigger that does not take it, and is carried on."""
    trigger = {"event": "go", "when": "event.ok == true", "timeout_seconds": 60}
    execution_id = await bench.start(definition({"id": "a", "triggers": [trigger]}), history_events_max=12)
    await until_awaiting(bench, execution_id, "a")
    await send(bench, execution_id, "go", {"ok": False})
    await bench.until_event(execution_id, "external.event_received")
    await lengthen(bench, execution_id)
    await send(bench, execution_id, "go", {"ok": True})
    return execution_id


async def fused_chain(bench: Bench) -> UUID:
    return await bench.start(definition(*chain(4)))


async def fused_chain_that_fails_in_its_middle(bench: Bench) -> UUID:
    tasks = chain(4, retry_policy={"max_attempts": 2, "initial_delay_seconds": 0.05})
    tasks[1]["input"] = {"fail_times": 1}
    return await bench.start(definition(*tasks))


async def sent_ahead(bench: Bench) -> UUID:
    """No chain in it; the second half is sent while the first still runs, for the role is known to be fast."""
    rest = [{"id": "e", "depends_on": ["d"]}, {"id": "f", "depends_on": ["d"]}, {"id": "g", "depends_on": ["e", "f"]}]
    return await bench.start(definition(*DIAMOND, *rest, agents=1))


async def conditions(bench: Bench) -> UUID:
    return await bench.start(
        definition(
            {"id": "check", "input": {"result": {"score": 3}}},
            {"id": "good", "depends_on": ["check"], "when": "results.check.score > 5"},
            {"id": "bad", "depends_on": ["check"], "when": "results.check.score <= 5"},
            {"id": "after_good", "depends_on": ["good"]},
            {"id": "end", "depends_on": ["good", "bad"]},
        )
    )


async def one_task_for_each_element(bench: Bench) -> UUID:
    return await bench.start(
        definition(
            {"id": "list", "input": {"result": {"files": ["a", "b", "c"]}}},
            {"id": "each", "depends_on": ["list"], "for_each": "results.list.files"},
            {"id": "end", "depends_on": ["each"]},
        )
    )


async def triggered(bench: Bench) -> UUID:
    """By the second event: the first does not meet the condition."""
    trigger = {"event": "approval", "when": "event.ok == true"}
    execution_id = await bench.start(
        definition({"id": "first"}, {"id": "go", "depends_on": ["first"], "triggers": [trigger]})
    )
    await until_awaiting(bench, execution_id, "go")
    await send(bench, execution_id, "approval", {"ok": False})
    await bench.until_event(execution_id, "external.event_received")
    await send(bench, execution_id, "approval", {"ok": True})
    return execution_id


async def triggers_that_time_out(bench: Bench) -> UUID:
    def waiting(on_timeout: str) -> dict[str, Any]:
        return {"id": on_timeout, "triggers": [{"event": "never", "timeout_seconds": 1, "on_timeout": on_timeout}]}

    return await bench.start(definition(waiting("skip"), waiting("run")))


async def spawned_tasks_that_block(bench: Bench) -> UUID:
    added = [
        {"id": "n1", "agent": "worker", "depends_on": ["plan"], "blocks": ["end"]},
        {"id": "n2", "agent": "worker", "depends_on": ["n1"], "blocks": ["end"]},
    ]
    return await bench.start(
        definition({"id": "plan", "input": {"spawn": added}}, {"id": "end", "depends_on": ["plan"]})
    )


async def reused(bench: Bench) -> UUID:
    tasks: list[dict[str, Any]] = [
        {"id": "a", "reuse": True, "input": {"result": {"x": 1}}},
        {"id": "b", "depends_on": ["a"]},
    ]
    await bench.until_closed(await bench.start(definition(*tasks)))
    return await bench.start(definition(*tasks))


async def send(bench: Bench, execution_id: UUID, kind: str, payload: Any) -> None:
    event = ExternalEvent(event_id=str(time.monotonic_ns()), type=kind, at_ms=int(time.time() * 1000), payload=payload)
    await bench.launcher.signal(bench.tenant, execution_id, "external_event", event)


async def until_awaiting(bench: Bench, execution_id: UUID, task_id: str) -> None:
    async def awaited() -> bool:
        return task_id in (await bench.status(execution_id)).awaiting

    await bench.until(awaited, f"{task_id} awaits an event")


async def hosts_that_came_late(bench: Bench) -> UUID:
    await bench.stop()
    execution_id = await bench.start(definition(*chain(2)))
    await bench.until_status(execution_id, ExecutionStatus.EXECUTING)
    await bench.start_host()
    return execution_id


SCENARIOS: tuple[Scenario, ...] = (
    diamond,
    slow_diamond_paused_and_resumed,
    retried_and_given_up,
    timed_out,
    cancelled_in_temporal,
    rewound,
    continued_as_new,
    continued_as_new_while_paused,
    continued_as_new_while_retries_wait,
    continued_as_new_while_an_event_is_awaited,
    hosts_that_came_late,
    fused_chain,
    fused_chain_that_fails_in_its_middle,
    sent_ahead,
    conditions,
    one_task_for_each_element,
    triggered,
    triggers_that_time_out,
    spawned_tasks_that_block,
    reused,
    *swarm_and_network.SCENARIOS,
    *hierarchies.SCENARIOS,
    *sagas.SCENARIOS,
    *custom.SCENARIOS,
    *handoffs_and_reviews.SCENARIOS,
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_record(bench: Bench, scenario: Scenario) -> None:
    HISTORIES.mkdir(exist_ok=True)
    execution_id = await scenario(bench)
    await bench.until_closed(execution_id)
    for old in HISTORIES.glob(f"*-{scenario.__name__}-*.json"):
        old.unlink()
    children = await _record_runs(bench, f"{bench.tenant}/{execution_id}", scenario.__name__)
    for child in sorted(children):
        await _record_runs(bench, child, f"{scenario.__name__}-{child.rpartition('/')[2]}")


async def _record_runs(bench: Bench, workflow_id: str, name: str) -> set[str]:
    """Ids of the child workflows that they began."""
    described = await bench.client.get_workflow_handle(workflow_id).describe()
    kind = described.workflow_type.removesuffix("Workflow").lower()
    runs, run_id = 0, described.raw_description.workflow_execution_info.first_run_id
    children: set[str] = set()
    while run_id:
        handle = bench.client.get_workflow_handle(workflow_id, run_id=run_id)
        await bench.until(lambda handle=handle: _is_over(handle), "the run is over")  # type: ignore[misc]
        history = await handle.fetch_history()
        text = re.sub(r'"identity": "[^"]*"', '"identity": "recorder"', history.to_json())
        # A sticky queue is named after the process and its machine.
        text = re.sub(r'"\d+@[^"]*"', '"recorder"', text)
        document = {"workflow_id": history.workflow_id, "history": json.loads(text)}
        (HISTORIES / f"{kind}-{name}-{runs}.json").write_text(json.dumps(document, indent=1) + "\n")
        runs += 1
        begun = (e.start_child_workflow_execution_initiated_event_attributes for e in history.events)
        children.update(attributes.workflow_id for attributes in begun if attributes.workflow_id)
        last = history.events[-1]
        run_id = last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return children


async def _is_over(handle: Any) -> bool:
    return (await handle.describe()).close_time is not None
