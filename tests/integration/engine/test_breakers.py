"""Circuit breakers of agent types on the real engine: what opens them, and what becomes of the tasks meanwhile."""

import asyncio
import time
from dataclasses import replace
from typing import Any
from uuid import UUID

from engine.contracts.circuits import CallEnd, CircuitAsk, CircuitRule, agent_service
from engine.contracts.execution import ExecutionStatus
from engine.contracts.views import ExecutionEvent
from engine.events import keys
from engine.events.breakers import RedisBreakers
from engine.events.functions import Functions
from orchestration_agent.host import AgentHost
from orchestration_agent.synthetic import run as synthetic
from tests.integration.engine.bench import Bench, chain, definition, types

SERVICE = agent_service("synthetic")
QUICK: dict[str, Any] = {"max_attempts": 6, "initial_delay_seconds": 0.02, "max_delay_seconds": 0.02}


def guarded(*tasks: dict[str, Any], agents: int = 1, **breaker: Any) -> dict[str, Any]:
    wanted = {"failure_threshold": 3, "timeout_seconds": 1, **breaker}
    return definition(*tasks, agents=agents, fault_tolerance={"circuit_breaker": wanted})


def circuit(events: list[ExecutionEvent]) -> list[str]:
    return [e.event_type.partition(".")[2] for e in events if e.event_type.startswith("circuit_breaker.")]


def assigned(events: list[ExecutionEvent]) -> list[ExecutionEvent]:
    return [e for e in events if e.event_type == "agent.task_assigned"]


async def opened_by_others(bench: Bench, timeout_ms: int) -> RedisBreakers:
    breakers = RedisBreakers(bench.redis, Functions(bench.redis), bench.settings.event_partitions)
    ends = tuple(CallEnd(verdict="failed", call_id=f"elsewhere-{n}") for n in range(3))
    rule = CircuitRule(timeout_ms=timeout_ms)
    (view,) = await breakers.consult(bench.tenant, rule, [CircuitAsk(service=SERVICE, ended=ends)], "elsewhere")
    assert view.state == "open"
    return breakers


async def test_what_succeeds_in_between_counts(bench: Bench) -> None:
    tasks: list[dict[str, Any]] = [
        {"id": "a", "input": {"fail_times": 3}, "retry_policy": QUICK},
        *({"id": f"b{n}"} for n in range(5)),
    ]
    execution_id = await bench.start(guarded(*tasks, agents=1))
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    events = await bench.events(execution_id)
    assert len([e for e in assigned(events) if e.payload["task_id"] == "a"]) == 4
    assert circuit(events) in ([], ["opened", "half_open", "closed"])  # a success in between starts the count anew
    await bench.assert_replays(execution_id)


async def test_it_opens_with_the_deciding_failure_and_nothing_is_sent_before_its_time(bench: Bench) -> None:
    """One task after the other fails; the third failure sends nothing more in the same tick."""
    first = {"id": "a", "input": {"fail_times": 4}, "retry_policy": QUICK, "estimated_seconds": 100}
    execution_id = await bench.start(guarded(first, {"id": "b", "depends_on": ["a"]}))
    opened = await bench.until_event(execution_id, "circuit_breaker.opened")
    assert {k: opened.payload[k] for k in ("service", "failure_count", "threshold", "opened_by")} == {
        "service": SERVICE, "failure_count": 3, "threshold": 3, "opened_by": str(execution_id)
    }  # fmt: skip
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    events = await bench.events(execution_id)
    # The first probe fails as well, so that it opens a second time.
    assert circuit(events) == ["opened", "half_open", "opened", "half_open", "closed"]
    attempts = [e for e in assigned(events) if e.payload["task_id"] == "a"]
    failures = [e for e in events if e.event_type == "task.completed" and e.payload["status"] == "failed"]
    assert [e.payload["attempt"] for e in failures] == [1, 2, 3, 4]
    for failure, retried in ((failures[2], attempts[3]), (failures[3], attempts[4])):
        assert (retried.recorded_at - failure.recorded_at).total_seconds() > 0.9
    assert opened.recorded_at == failures[2].recorded_at
    await bench.assert_replays(execution_id)


async def test_a_breaker_that_others_opened_holds_an_execution_from_its_first_tick(bench: Bench) -> None:
    await opened_by_others(bench, timeout_ms=1_500)
    began = time.monotonic()
    execution_id = await bench.start(guarded({"id": "a"}, {"id": "b"}, {"id": "c"}, agents=2))
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    assert time.monotonic() - began > 1.0
    events = await bench.events(execution_id)
    assert circuit(events) == ["opened", "half_open", "closed"]
    sent = assigned(events)
    # One probe; the others follow when it is done.
    assert len({e.payload["task_id"] for e in sent}) == 3
    closed = next(e for e in events if e.event_type == "circuit_breaker.closed")
    assert sum(e.sequence < closed.sequence for e in sent) == 1
    await bench.assert_replays(execution_id)


async def test_executions_that_wait_go_on_at_once_when_an_operator_closes_it(bench: Bench) -> None:
    breakers = await opened_by_others(bench, timeout_ms=600_000)
    waiting = [await bench.start(guarded({"id": "a"}, {"id": "b"})) for _ in range(3)]
    for execution_id in waiting:
        await bench.until_event(execution_id, "circuit_breaker.opened")
        assert assigned(await bench.events(execution_id)) == []
    began = time.monotonic()
    assert await breakers.reset(bench.tenant, SERVICE)
    for execution_id in waiting:
        closed = await bench.until_event(execution_id, "circuit_breaker.closed")
        assert closed.payload["service"] == SERVICE
        assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
        assert circuit(await bench.events(execution_id)) == ["opened", "closed"]
        await bench.assert_replays(execution_id)
    assert time.monotonic() - began < 60  # and not the ten minutes


async def test_the_probe_of_one_execution_wakes_the_others(bench: Bench) -> None:
    """The others have been told that it opens in ten minutes, and hear that one of them has closed it."""
    breakers = await opened_by_others(bench, timeout_ms=600_000)
    waiting = await bench.start(guarded({"id": "a"}))
    await bench.until_event(waiting, "circuit_breaker.opened")
    await bench.redis.hset(keys.breaker(bench.tenant, SERVICE), "due", "1")
    probing = await bench.start(guarded({"id": "a"}))
    assert (await bench.until_closed(probing)).status is ExecutionStatus.COMPLETED
    assert circuit(await bench.events(probing)) == ["opened", "half_open", "closed"]
    assert (await bench.until_closed(waiting)).status is ExecutionStatus.COMPLETED
    assert circuit(await bench.events(waiting)) == ["opened", "closed"]
    assert [view.state for view in await breakers.known(bench.tenant)] == ["closed"]
    await bench.assert_replays(waiting)


async def test_a_definition_without_the_section_does_not_ask(bench: Bench) -> None:
    await opened_by_others(bench, timeout_ms=60_000)
    execution_id = await bench.start(definition({"id": "a"}))
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED


async def test_tasks_fail_at_once_where_the_definition_says_so(bench: Bench) -> None:
    await opened_by_others(bench, timeout_ms=60_000)
    tasks: list[dict[str, Any]] = [{"id": "a"}, {"id": "b", "depends_on": ["a"]}]
    execution_id = await bench.start(guarded(*tasks, when_open="fail"))
    done = await bench.until_closed(execution_id)
    assert done.error_details is not None
    assert done.error_details["failed_task"] == "a"
    assert done.error_details["details"]["code"] == "CIRCUIT_OPEN"
    assert assigned(await bench.events(execution_id)) == []
    await bench.assert_replays(execution_id)


async def test_a_retry_that_comes_due_while_it_is_open_fails_too(bench: Bench) -> None:
    task = {"id": "a", "input": {"fail_times": 5}, "retry_policy": QUICK}
    execution_id = await bench.start(guarded(task, when_open="fail", timeout_seconds=60))
    done = await bench.until_closed(execution_id)
    assert done.error_details is not None
    assert done.error_details["details"]["code"] == "CIRCUIT_OPEN"
    assert len(assigned(await bench.events(execution_id))) == 3
    await bench.assert_replays(execution_id)


async def test_tasks_go_to_another_capable_type_where_the_definition_says_so(bench: Bench) -> None:
    options = replace(bench.host_options, types=("spare",), host_id="")
    spare = AgentHost(synthetic, options)
    bench.hosts[spare] = asyncio.create_task(spare.run())
    await opened_by_others(bench, timeout_ms=60_000)
    document = guarded({"id": "a"}, {"id": "b", "depends_on": ["a"]}, when_open="reassign", timeout_seconds=60)
    document["agents"]["worker"]["capabilities"] = ["write"]
    document["agents"]["unable"] = {"type": "unable", "count": 1, "capabilities": ["read"]}
    document["agents"]["reserve"] = {"type": "spare", "count": 1, "capabilities": ["read", "write"]}
    execution_id = await bench.start(document)
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    assert {e.payload["agent_id"] for e in assigned(await bench.events(execution_id))} == {"reserve-1"}
    await bench.assert_replays(execution_id)


async def test_a_lost_host_counts_as_one_failure_however_much_it_had(bench: Bench) -> None:
    task = {"input": {"duration_ms": 1500}}
    execution_id = await bench.start(guarded(*({"id": f"t{n}", **task} for n in range(4)), agents=4))
    await bench.until(lambda: started(bench, execution_id, 4), "all run")
    (first,) = bench.hosts
    bench.hosts[first].cancel()
    await bench.start_host()
    await bench.redis.xadd(
        f"orc:{{{bench.tenant}}}:agents",
        {
            "event_type": "agent.disconnected",
            "timestamp": "2026-01-01T00:00:00Z",
            "payload": f'{{"host_id": "{first.host_id}"}}',
        },
    )
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    events = await bench.events(execution_id)
    assert types(events).count("agent.disconnected") >= 1
    assert circuit(events) == []


async def started(bench: Bench, execution_id: UUID, count: int) -> bool:
    return types(await bench.events(execution_id)).count("agent.task_started") >= count


async def test_a_pause_while_it_is_open_loses_nothing(bench: Bench) -> None:
    await opened_by_others(bench, timeout_ms=1_500)
    execution_id = await bench.start(guarded({"id": "a"}, {"id": "b"}))
    await bench.until_event(execution_id, "circuit_breaker.opened")
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await asyncio.sleep(1.6)  # its time comes while nothing may start
    assert assigned(await bench.events(execution_id)) == []
    await bench.ask(execution_id, "resume")
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    await bench.assert_replays(execution_id)


async def test_continue_as_new_while_it_is_open_loses_nothing(bench: Bench) -> None:
    steps = chain(10, input={"duration_ms": 60})
    last = {"id": "a", "depends_on": ["t9"], "input": {"fail_times": 3}, "retry_policy": QUICK}
    execution_id = await bench.start(guarded(*steps, last, timeout_seconds=2), history_events_max=30)
    await bench.until_event(execution_id, "circuit_breaker.opened")
    done = await bench.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    assert circuit(await bench.events(execution_id)) == ["opened", "half_open", "closed"]
    assert await bench.assert_replays(execution_id) > 1


async def test_failures_of_an_agent_type_are_counted_for_the_figures(bench: Bench) -> None:
    execution_id = await bench.start(definition({"id": "a", "input": {"fail_times": 2}, "retry_policy": QUICK}))
    await bench.until_closed(execution_id)
    assert await RedisBreakers(bench.redis, Functions(bench.redis)).failures(bench.tenant) == {"synthetic": 2}
