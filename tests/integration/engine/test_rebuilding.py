"""The read model and the log say the same: made again from its events alone, an execution is what clients read."""

from typing import Any
from uuid import UUID, uuid4

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Control
from engine.contracts.views import ExecutionEvent, TaskProgress
from engine.recovery.rebuilding import RebuiltTask, rebuilt
from tests.integration.engine.bench import DIAMOND, Bench, definition


async def stored(bench: Bench, execution_id: UUID) -> dict[str, TaskProgress]:
    found: dict[str, TaskProgress] = {}
    token: str | None = None
    while True:
        page = await bench.stores.executions.tasks(bench.tenant, execution_id, limit=100, page_token=token)
        found |= {task.task_id: task for task in page.items}
        token = page.next_page_token
        if token is None:
            return found


async def at_rest(bench: Bench, execution_id: UUID) -> tuple[list[ExecutionEvent], dict[str, TaskProgress]]:
    """The log and the rows of one moment: what is in flight when a run is paused still ends."""
    while True:
        events, rows = await bench.events(execution_id), await stored(bench, execution_id)
        if await bench.stores.executions.last_sequence(bench.tenant, execution_id) == events[-1].sequence:
            return events, rows


async def assert_rebuilt(bench: Bench, execution_id: UUID) -> None:
    events, rows = await at_rest(bench, execution_id)
    view = await bench.status(execution_id)
    again = rebuilt(events)
    assert (again.status, again.epoch) == (view.status, view.epoch)
    assert set(again.tasks) <= set(rows)
    for task_id, row in rows.items():
        made = again.tasks.get(task_id, RebuiltTask())
        assert shown(made) == shown(row), task_id
    bound = {agent.agent_id: agent.role for agent in view.agents}
    assert {agent_id: role for agent_id, (role, *_) in again.agents.items()} == bound
    page = await bench.stores.executions.checkpoints(bench.tenant, execution_id, limit=100, page_token=None)
    assert again.checkpoints == [str(item.checkpoint_id) for item in reversed(page.items)]


def shown(task: Any) -> tuple[Any, ...]:
    return (
        task.state, task.attempt, task.agent_id, task.started_at, task.completed_at, task.result, task.result_ref,
        task.error,
    )  # fmt: skip


async def test_of_a_graph_that_completes(bench: Bench) -> None:
    execution_id = await bench.start(definition(*DIAMOND))
    await bench.until_closed(execution_id)
    await assert_rebuilt(bench, execution_id)


async def test_of_large_results_retries_and_an_end_in_failure(bench: Bench) -> None:
    execution_id = await bench.start(
        definition(
            {"id": "large", "input": {"result": "x" * 20_000}},
            {"id": "again", "input": {"fail_times": 1}},
            {"id": "broken", "depends_on": ["again"], "input": {"fail": "no"}, "retry_policy": "none"},
            {"id": "never", "depends_on": ["broken"]},
        )
    )  # fmt: skip
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.FAILED
    await assert_rebuilt(bench, execution_id)


async def test_of_conditions_and_lists(bench: Bench) -> None:
    execution_id = await bench.start(
        definition(
            {"id": "list", "input": {"result": [1, 2, 3]}},
            {"id": "each", "depends_on": ["list"], "for_each": "results.list"},
            {"id": "not", "depends_on": ["list"], "when": "size(results.list) > 5"},
            {"id": "end", "depends_on": ["each", "not"]},
        )
    )
    await bench.until_closed(execution_id)
    await assert_rebuilt(bench, execution_id)


async def test_of_a_run_that_was_paused_taken_back_and_cancelled(bench: Bench) -> None:
    slow = {"input": {"duration_ms": 400}}
    execution_id = await bench.start(
        definition(
            {"id": "a", **slow}, {"id": "b", "depends_on": ["a"], **slow}, {"id": "c", "depends_on": ["b"], **slow}
        )
    )
    await bench.until_event(execution_id, "agent.task_started", task_id="a")
    earlier = str(uuid4())
    control = Control(request_id="c", action="checkpoint", checkpoint_id=earlier)
    await bench.stores.executions.request_control(bench.tenant, execution_id, control)
    await bench.launcher.signal(bench.tenant, execution_id, "catch_up")
    await bench.until_event(execution_id, "agent.task_started", task_id="b")
    control = Control(request_id="p", action="pause", checkpoint_id=str(uuid4()))
    await bench.stores.executions.request_control(bench.tenant, execution_id, control)
    await bench.launcher.signal(bench.tenant, execution_id, "pause", "p")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await assert_rebuilt(bench, execution_id)
    await bench.ask(execution_id, "resume", earlier)
    await bench.until_event(execution_id, "workflow.resumed_from_checkpoint")
    await bench.ask(execution_id, "cancel")
    await bench.until_closed(execution_id)
    await assert_rebuilt(bench, execution_id)
