"""Record the golden histories anew: `python -m pytest tests/golden/record.py`.

Run it after adding a branch, never to make a failing replay pass: a history that does not replay means that running
executions would break.
"""

import json
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from engine.contracts.execution import ExecutionStatus
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
    execution_id = await bench.start(definition(*chain(3, input={"duration_ms": 80}), agents=1))
    await bench.until_event(execution_id, "task.completed", task_id="t0")
    await bench.ask(execution_id, "checkpoint")
    first = await bench.until_event(execution_id, "workflow.checkpoint_created", reason="requested")
    await bench.until_event(execution_id, "task.completed", task_id="t1")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.ask(execution_id, "resume", first.payload["checkpoint_id"])
    return execution_id


async def continued_as_new(bench: Bench) -> UUID:
    return await bench.start(definition(*chain(6, input={"duration_ms": 40}), agents=1), history_events_max=15)


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
    hosts_that_came_late,
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_record(bench: Bench, scenario: Scenario) -> None:
    HISTORIES.mkdir(exist_ok=True)
    execution_id = await scenario(bench)
    await bench.until_closed(execution_id)
    runs, run_id = 0, (await bench.handle(execution_id).describe()).raw_description.workflow_execution_info.first_run_id
    while run_id:
        handle = bench.client.get_workflow_handle(f"{bench.tenant}/{execution_id}", run_id=run_id)
        await bench.until(lambda handle=handle: _is_over(handle), "the run is over")  # type: ignore[misc]
        history = await handle.fetch_history()
        # The worker's name holds the machine's.
        text = re.sub(r'"identity": "[^"]*"', '"identity": "recorder"', history.to_json())
        document = {"workflow_id": history.workflow_id, "history": json.loads(text)}
        (HISTORIES / f"supervisor-{scenario.__name__}-{runs}.json").write_text(json.dumps(document, indent=1) + "\n")
        runs += 1
        last = history.events[-1]
        run_id = last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id


async def _is_over(handle: Any) -> bool:
    return (await handle.describe()).close_time is not None
