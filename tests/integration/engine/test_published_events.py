"""What is published is the audit log, exactly: whoever committed it, and whatever happened to the streams meanwhile."""

from typing import Any
from uuid import UUID, uuid4

import orjson

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Control
from engine.events import keys
from engine.events.facts import rfc3339
from tests.integration.engine.bench import DIAMOND, Bench, definition


async def published(bench: Bench, execution_id: UUID) -> list[dict[str, str]]:
    workflow_id = (await bench.status(execution_id)).workflow_id
    entries: Any = await bench.redis.xrange(keys.workflow_events_prefix(bench.tenant) + str(workflow_id))
    fields = [{name.decode(): value.decode() for name, value in entry.items()} for _, entry in entries]
    return [item for item in fields if item["execution_id"] == str(execution_id)]


async def assert_published(bench: Bench, execution_id: UUID) -> None:
    async def complete() -> bool:
        view, log = await published(bench, execution_id), await bench.events(execution_id)
        return len(view) >= len(log)

    await bench.until(complete, "all facts are published", 20)
    view, log = await published(bench, execution_id), await bench.events(execution_id)
    assert [int(item["sequence"]) for item in view] == [event.sequence for event in log]
    for item, event in zip(view, log, strict=True):
        assert item["event_type"] == event.event_type
        assert orjson.loads(item["payload"]) == event.payload
        assert (item["epoch"], item["trace_id"]) == (str(event.epoch), str(event.trace_id))
        at = event.timestamp
        assert item["timestamp"] == rfc3339(int(at.timestamp()) * 1000 + at.microsecond // 1000)


async def test_each_fact_of_an_execution_is_published_once_in_order(bench: Bench) -> None:
    first = await bench.start(definition(*DIAMOND))
    failing = await bench.start(
        definition({"id": "a", "input": {"fail_times": 1}}, {"id": "b", "depends_on": ["a"], "input": {"fail": "no"},
                   "retry_policy": "none"})
    )  # fmt: skip
    for execution_id in (first, failing):
        await bench.until_closed(execution_id)
        await assert_published(bench, execution_id)


async def test_streams_that_lost_everything_get_it_again(bench: Bench) -> None:
    execution_id = await bench.start(
        definition({"id": "a"}, {"id": "b", "depends_on": ["a"], "input": {"duration_ms": 1_500}})
    )
    await bench.until_event(execution_id, "agent.task_started", task_id="b")
    workflow_id = (await bench.status(execution_id)).workflow_id
    await bench.redis.delete(
        keys.workflow_events_prefix(bench.tenant) + str(workflow_id),
        keys.tick_key(bench.tenant, str(execution_id)),
        *(keys.facts_stream(bench.tenant, n) for n in range(bench.settings.event_partitions)),
        *(keys.facts_expanded(bench.tenant, n) for n in range(bench.settings.event_partitions)),
    )
    await bench.until_closed(execution_id)
    await assert_published(bench, execution_id)


async def test_what_no_tick_commits_is_published_too(bench: Bench) -> None:
    launch = await bench.plan_row(definition({"id": "a"}))
    execution_id = UUID(launch.execution_id)
    await bench.stores.executions.close_from_outside(
        bench.tenant, execution_id, ExecutionStatus.CANCELLED, "STOPPED", "by hand"
    )
    await assert_published(bench, execution_id)
    log = await bench.events(execution_id)
    assert [event.payload["new_status"] for event in log] == ["planning", "cancelled"]


async def test_facts_of_a_resumed_execution_carry_their_epoch(bench: Bench) -> None:
    slow = {"input": {"duration_ms": 500}}
    execution_id = await bench.start(definition({"id": "a", **slow}, {"id": "b", "depends_on": ["a"], **slow}))
    await bench.until_event(execution_id, "agent.task_started", task_id="a")
    earlier = "7f000000-0000-4000-8000-000000000001"
    control = Control(request_id="c", action="checkpoint", checkpoint_id=earlier)
    await bench.stores.executions.request_control(bench.tenant, execution_id, control)
    await bench.launcher.signal(bench.tenant, execution_id, "catch_up")
    await bench.until_event(execution_id, "workflow.checkpoint_created", checkpoint_id=earlier)
    await bench.until_event(execution_id, "agent.task_started", task_id="b")
    control = Control(request_id="p", action="pause", checkpoint_id=str(uuid4()))
    await bench.stores.executions.request_control(bench.tenant, execution_id, control)
    await bench.launcher.signal(bench.tenant, execution_id, "pause", "p")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.ask(execution_id, "resume", earlier)
    await bench.until_closed(execution_id)
    await assert_published(bench, execution_id)
    assert {event.epoch for event in await bench.events(execution_id)} == {1, 2}
