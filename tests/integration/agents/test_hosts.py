"""A host against a real server."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from engine.embedded.valkey import ValkeyServer
from orchestration_agent import Task, TaskFailed, host, lanes, synthetic
from tests.integration.agents.conversation import Conversation, running_host


@pytest.fixture
async def redis(valkey_server: ValkeyServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(valkey_server.url)
    yield client
    await client.aclose()


@pytest.fixture
def talk(redis: Redis, tenant: str) -> Conversation:
    return Conversation(redis, tenant)


async def echo(task: Task) -> dict[str, Any]:
    return {"input": task.input, "all": task.execution_input, "results": task.results, "of": task.agent_id}


async def test_a_task_gets_its_inputs_and_its_result_is_reported(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    async with running_host(valkey_server.url, talk.tenant, echo) as agent:
        await talk.assign(agent.host_id, "b", input={"n": 1}, results={"a": 2})
        await talk.ended("b")
    (event,) = talk.events
    assert event["result"] == {"input": {"n": 1}, "all": {"the": "input"}, "results": {"a": 2}, "of": "worker-1"}
    assert (event["agent_id"], event["epoch"], event["attempt"]) == ("worker-1", 1, 1)
    assert event["started_at_ms"] <= event["at_ms"]


async def test_a_host_is_known_from_registration_to_departure(valkey_server: ValkeyServer, talk: Conversation) -> None:
    async with running_host(
        valkey_server.url, talk.tenant, echo, capabilities=("git",), heartbeat_seconds=0.05
    ) as agent:
        await talk.until_host_says(lambda said: len(said) >= 3)
    said = await talk.host_says()
    assert [kind for kind, _ in said[:3]] == ["agent.registered", "agent.heartbeat", "agent.heartbeat"]
    assert said[-1][0] == "agent.disconnected"
    payload = said[0][1]
    assert (payload["host_id"], payload["types"], payload["capabilities"]) == (agent.host_id, ["coder"], ["git"])
    assert said[1][1] == payload
    assert await talk.redis.sismember("orc:tenants", talk.tenant)
    assert not await talk.redis.exists(f"orc:{{{talk.tenant}}}:tasks:{agent.host_id}")


async def test_a_burst_of_fast_tasks_goes_out_in_few_entries_without_separate_starts(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    names = [f"t{n}" for n in range(2_000)]
    async with running_host(valkey_server.url, talk.tenant, synthetic.run, slots=100) as agent:
        await talk.assign(agent.host_id, *names)
        await talk.until(lambda: len(talk.seen("completed")) == 2_000)
    assert talk.entries < 100
    assert len(talk.seen("started")) < 200  # none but for a pause of the machine


async def test_what_ends_in_one_turn_is_one_entry_however_few_slots_there_are(
    valkey_server: ValkeyServer, talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "TURN_SECONDS", 60.0)
    names = [f"t{n}" for n in range(48)]
    async with running_host(valkey_server.url, talk.tenant, synthetic.run, slots=2) as agent:
        assign = [talk.assignment(name, agent_id=f"worker-{n % 3}") for n, name in enumerate(names)]
        await talk.tell(agent.host_id, assign=assign)
        await talk.ended(*names)
    assert talk.entries == 1


async def test_a_slow_task_reports_its_start_and_its_progress(valkey_server: ValkeyServer, talk: Conversation) -> None:
    async with running_host(valkey_server.url, talk.tenant, synthetic.run) as agent:
        await talk.assign(agent.host_id, "a", input={"duration_ms": 100, "progress": 2})
        await talk.ended("a")
    assert [e["type"].removeprefix("agent.task_") for e in talk.events] == ["started", "progress", "completed"]
    assert talk.events[1]["progress"] == 0.5


async def test_failures_have_a_code_and_the_host_lives_on(valkey_server: ValkeyServer, talk: Conversation) -> None:
    async def work(task: Task) -> Any:
        if task.task_id == "raises":
            raise RuntimeError("boom")
        if task.task_id == "exits":
            raise SystemExit(3)
        if task.task_id == "states":
            raise TaskFailed("no", code="NO")
        if task.task_id == "cancels":
            raise asyncio.CancelledError
        return object() if task.task_id == "strange" else "x" * (9 * 1024 * 1024) if task.task_id == "large" else "fine"

    names = ["raises", "exits", "states", "cancels", "strange", "large", "fine"]
    async with running_host(valkey_server.url, talk.tenant, work) as agent:
        await talk.assign(agent.host_id, *names)
        await talk.ended(*names)
    codes = {event["task_id"]: event["error"]["code"] for event in talk.seen("failed")}
    assert codes == {
        "raises": "AGENT_ERROR", "exits": "AGENT_ERROR", "states": "NO", "cancels": "AGENT_ERROR",
        "strange": "RESULT_NOT_JSON", "large": "RESULT_TOO_LARGE",
    }  # fmt: skip
    assert talk.seen("completed", "fine")
    assert not any("Traceback" in event["error"]["message"] for event in talk.seen("failed"))


async def test_a_defect_of_the_host_itself_fails_the_attempt_instead_of_leaving_it_to_its_timeout(
    valkey_server: ValkeyServer, talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ValueError("not the function's fault")

    async with running_host(valkey_server.url, talk.tenant, echo) as agent:
        monkeypatch.setattr(agent._runner, "run", broken)
        await talk.assign(agent.host_id, "a")
        await talk.ended("a")
    (event,) = talk.seen("failed", "a")
    assert (event["error"]["code"], event["error"]["retryable"]) == ("AGENT_DEFECT", True)


async def test_slots_are_kept_and_the_queue_is_in_order(valkey_server: ValkeyServer, talk: Conversation) -> None:
    gate, begun = asyncio.Event(), []

    async def work(task: Task) -> None:
        begun.append(task.task_id)
        await gate.wait()

    async with running_host(valkey_server.url, talk.tenant, work) as agent:
        await talk.assign(agent.host_id, "a", "b", "c", "d")
        await talk.until(lambda: len(talk.seen("started")) == 2)
        assert begun == ["a", "b"]
        gate.set()
        await talk.ended("a", "b", "c", "d")
    assert begun == ["a", "b", "c", "d"]


async def test_a_result_is_sent_again_until_it_is_consumed(valkey_server: ValkeyServer, talk: Conversation) -> None:
    async with running_host(valkey_server.url, talk.tenant, echo, resend_seconds=0.2) as agent:
        await talk.assign(agent.host_id, "a")
        await talk.until(lambda: len(talk.seen("completed")) >= 3)
        assert all(event == talk.events[0] for event in talk.events)
        await talk.tell(agent.host_id, consumed=[["a", 1, 1]])
        async with asyncio.timeout(60):
            while agent._outbox.kept:  # noqa: ASYNC110 - the host has no event for it
                await asyncio.sleep(0.01)


async def test_an_assignment_that_comes_twice_is_done_once_and_its_result_is_sent_again(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    calls = []

    async def work(task: Task) -> None:
        calls.append((task.task_id, task.attempt))

    async with running_host(valkey_server.url, talk.tenant, work) as agent:
        await talk.assign(agent.host_id, "a")
        await talk.ended("a")
        await talk.assign(agent.host_id, "a")
        await talk.until(lambda: len(talk.seen("completed", "a")) == 2)
        await talk.assign(agent.host_id, "a", attempt=2)
        await talk.until(lambda: len(talk.seen("completed", "a")) == 3)
    assert calls == [("a", 1), ("a", 2)]


async def test_an_assignment_of_what_runs_confirms_the_start_again(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    gate = asyncio.Event()

    async def work(task: Task) -> None:
        await gate.wait()

    async with running_host(valkey_server.url, talk.tenant, work) as agent:
        await talk.assign(agent.host_id, "a")
        await talk.until(lambda: len(talk.seen("started")) == 1)
        await talk.assign(agent.host_id, "a")
        await talk.until(lambda: len(talk.seen("started")) == 2)
        gate.set()
        await talk.ended("a")


async def test_a_pause_gives_back_what_waits_and_a_run_goes_on(valkey_server: ValkeyServer, talk: Conversation) -> None:
    gate = asyncio.Event()

    async def work(task: Task) -> None:
        await gate.wait()

    async with running_host(valkey_server.url, talk.tenant, work, slots=1) as agent:
        await talk.assign(agent.host_id, "a", "b")
        await talk.until(lambda: talk.seen("started", "a"))
        await talk.tell(agent.host_id, control="pause")
        await talk.until(lambda: talk.seen("returned", "b"))
        gate.set()
        await talk.ended("a")
        await talk.assign(agent.host_id, "c")
        await talk.until(lambda: talk.seen("returned", "c"))
        await talk.tell(agent.host_id, control="run")
        await talk.assign(agent.host_id, "b")
        await talk.ended("b")


def chain(*names: str, **more: Any) -> list[dict[str, Any]]:
    """Assignments of a chain in the order of the names."""
    assign = [Conversation.assignment(name, **more) for name in names]
    for before, item in pairwise(assign):
        item["after"] = [before["task_id"]]
        del item["results"]
    return assign


async def test_a_chain_goes_from_result_to_result_and_is_reported_task_by_task_in_few_entries(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    async def work(task: Task) -> dict[str, Any]:
        return {"of": task.task_id, "from": task.results}

    names = [f"t{n}" for n in range(10)]
    async with running_host(valkey_server.url, talk.tenant, work, slots=1) as agent:
        assert (await talk_registered(talk))["features"] == ["chains", "pressure"]
        await talk.tell(agent.host_id, assign=chain(*names))
        await talk.ended(*names)
        assert talk.entries <= 2
        assert [event["task_id"] for event in talk.seen("completed")] == names
        assert talk.seen("completed", "t2")[0]["result"]["from"]["t1"]["of"] == "t1"
        for before, event in pairwise(talk.seen("completed")):
            assert before["started_at_ms"] <= before["at_ms"] <= event["started_at_ms"] <= event["at_ms"]
        await talk.tell(agent.host_id, assign=chain("t9", "late")[1:])  # its predecessor's result is still kept
        await talk.ended("late")
        assert talk.seen("completed", "late")[0]["result"]["from"]["t9"]["of"] == "t9"
        await talk.tell(agent.host_id, consumed=[["late", 1, 1]], assign=chain("late", "with it")[1:])
        await talk.ended("with it")
        await talk.tell(agent.host_id, assign=chain("late", "too late")[1:])
        await talk.until(lambda: talk.seen("returned", "too late"))


async def talk_registered(talk: Conversation) -> dict[str, Any]:
    await talk.until_host_says(lambda said: said)
    return (await talk.host_says())[0][1]


async def test_a_pause_stops_between_the_tasks_of_a_chain(valkey_server: ValkeyServer, talk: Conversation) -> None:
    gate = asyncio.Event()

    async def work(task: Task) -> None:
        if task.task_id == "b":
            await gate.wait()

    async with running_host(valkey_server.url, talk.tenant, work) as agent:
        await talk.tell(agent.host_id, assign=chain("a", "b", "c", "d"))
        await talk.until(lambda: talk.seen("started", "b"))
        assert talk.seen("completed", "a")
        await talk.tell(agent.host_id, control="pause")
        await talk.until(lambda: talk.seen("returned", "d"))
        gate.set()
        await talk.ended("b")
        await talk.tell(agent.host_id, control="run", assign=chain("b", "c", "d")[1:])
        await talk.ended("d")
    assert {event["task_id"] for event in talk.seen("returned")} == {"c", "d"}


async def test_a_failure_in_a_chain_gives_the_rest_back(valkey_server: ValkeyServer, talk: Conversation) -> None:
    async with running_host(valkey_server.url, talk.tenant, synthetic.run) as agent:
        a, b, *rest = chain("a", "b", "c", "d")
        await talk.tell(agent.host_id, assign=[a, {**b, "input": {"fail": "no"}}, *rest])
        await talk.until(lambda: talk.seen("returned", "d"))
    assert [(e["type"].removeprefix("agent.task_"), e["task_id"]) for e in talk.events] == [
        ("completed", "a"),
        ("failed", "b"),
        ("returned", "c"),
        ("returned", "d"),
    ]


async def test_plain_functions_run_chains_too(valkey_server: ValkeyServer, talk: Conversation) -> None:
    def work(task: Task) -> int:
        return 1 + sum(map(int, task.results.values()))

    names = [f"t{n}" for n in range(10)]
    async with running_host(valkey_server.url, talk.tenant, work) as agent:
        await talk.tell(agent.host_id, assign=chain(*names))
        await talk.ended(*names)
    assert [event["result"] for event in talk.seen("completed")] == list(range(1, 11))
    assert talk.entries < 10


async def test_added_tasks_travel_with_the_result_and_are_kept_with_it(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    added = [{"id": "x", "agent": "worker", "depends_on": ["a"], "blocks": ["z"]}]
    async with running_host(valkey_server.url, talk.tenant, synthetic.run, resend_seconds=0.1) as agent:
        await talk.assign(agent.host_id, "a", input={"spawn": added, "result": 1})
        await talk.until(lambda: len(talk.seen("completed", "a")) >= 2)
    for event in talk.seen("completed", "a"):
        assert (event["result"], event["spawn"]) == (1, added)


async def test_a_cancelled_coroutine_is_cancelled_and_says_nothing_more(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    cancelled = asyncio.Event()

    async def work(task: Task) -> None:
        if task.task_id == "a":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

    async with running_host(valkey_server.url, talk.tenant, work, slots=1) as agent:
        await talk.assign(agent.host_id, "a", "b")
        await talk.until(lambda: talk.seen("started", "a"))
        await talk.tell(agent.host_id, cancel=[["a", 1, 1]])
        await asyncio.wait_for(cancelled.wait(), 60)
        await talk.ended("b")
    assert {e["task_id"] for e in talk.seen("completed") + talk.seen("failed")} == {"b"}


async def test_a_cancelled_plain_function_is_told_and_its_result_is_dropped(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    ended = threading.Event()

    def work(task: Task) -> str:
        if task.task_id == "a":
            task.progress(0.1)
            task.cancelled.wait(10)
            ended.set()
        return task.task_id

    async with running_host(valkey_server.url, talk.tenant, work, slots=1) as agent:
        await talk.assign(agent.host_id, "a", "b")
        await talk.until(lambda: talk.seen("progress", "a"))
        await talk.tell(agent.host_id, cancel=[["a", 1, 1]])
        await talk.ended("b")
        assert ended.is_set()  # the slot was kept until then
    assert not talk.seen("completed", "a")


async def test_a_function_that_resists_its_cancellation_does_not_keep_its_slot_for_ever(
    valkey_server: ValkeyServer, talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "CANCEL_GRACE_SECONDS", 0.05)
    gate = threading.Event()

    def work(task: Task) -> None:
        if task.task_id == "a":
            gate.wait(20)
            raise ValueError("nobody cares")

    async with running_host(valkey_server.url, talk.tenant, work, slots=1) as agent:
        await talk.assign(agent.host_id, "a", "b")
        await talk.until(lambda: talk.seen("started", "a"))
        await talk.tell(agent.host_id, control="cancel")
        await talk.assign(agent.host_id, "b", attempt=2)
        await talk.ended("b")
        gate.set()


async def test_cancelling_an_execution_stops_all_of_it_and_no_other(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    stopped: list[str] = []

    async def work(task: Task) -> None:
        try:
            await asyncio.sleep(0.2 if task.execution_id == other.execution_id else 60)
        except asyncio.CancelledError:
            stopped.append(task.task_id)
            raise

    other = Conversation(talk.redis, talk.tenant)
    async with running_host(valkey_server.url, talk.tenant, work) as agent:
        await other.assign(agent.host_id, "z")
        await talk.assign(agent.host_id, "a", "b", "c")
        await talk.until(lambda: len(talk.seen("started")) == 2)
        await talk.tell(agent.host_id, control="cancel")
        await other.ended("z")
        async with asyncio.timeout(60):
            while len(stopped) < 2:  # noqa: ASYNC110 - the host has no event for it
                await asyncio.sleep(0.01)
    assert not talk.seen("completed")


async def test_a_stopping_host_gives_back_what_waits_and_reports_what_it_still_ends(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    gate = asyncio.Event()

    async def work(task: Task) -> str:
        await gate.wait()
        return "done"

    async with running_host(valkey_server.url, talk.tenant, work, slots=1, heartbeat_seconds=0.05) as agent:
        await talk.assign(agent.host_id, "a", "b")
        await talk.until(lambda: talk.seen("started", "a"))
        agent.stop()
        await talk.until(lambda: talk.seen("returned", "b"))
        await talk.until_host_says(lambda said: said[-1][1].get("draining"))
        await talk.assign(agent.host_id, "c")
        await talk.until(lambda: talk.seen("returned", "c"))
        gate.set()
        await talk.ended("a")
        await talk.until_host_says(lambda said: said[-1][0] == "agent.disconnected")
    assert talk.seen("completed", "a")[0]["result"] == "done"


async def test_what_does_not_end_within_the_grace_is_left(valkey_server: ValkeyServer, talk: Conversation) -> None:
    async def work(task: Task) -> None:
        await asyncio.sleep(60)

    async with running_host(valkey_server.url, talk.tenant, work, grace_seconds=0.05) as agent:
        await talk.assign(agent.host_id, "a")
        await talk.until(lambda: talk.seen("started", "a"))
    await talk.collect()
    assert not talk.seen("failed")
    assert (await talk.host_says())[-1][0] == "agent.disconnected"


async def test_entries_that_are_not_understood_are_passed_over(valkey_server: ValkeyServer, talk: Conversation) -> None:
    async with running_host(valkey_server.url, talk.tenant, echo) as agent:
        await talk.redis.xadd(f"orc:{{{talk.tenant}}}:tasks:{agent.host_id}", {"b": "{"})
        await talk.tell(agent.host_id, v=2)
        await talk.assign(agent.host_id, "a")
        await talk.ended("a")


async def test_a_host_removes_what_it_has_read(valkey_server: ValkeyServer, talk: Conversation) -> None:
    async with running_host(valkey_server.url, talk.tenant, echo) as agent:
        for name in "abc":
            await talk.assign(agent.host_id, name)
            await talk.ended(name)
        async with asyncio.timeout(60):
            while await talk.redis.xlen(f"orc:{{{talk.tenant}}}:tasks:{agent.host_id}"):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)


async def test_a_host_that_was_given_up_comes_back_as_another_and_drops_what_it_had(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    stopped = asyncio.Event()

    async def work(task: Task) -> None:
        if task.task_id == "a":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                stopped.set()
                raise

    async with running_host(valkey_server.url, talk.tenant, work) as agent:
        first = agent.host_id
        await talk.assign(first, "a")
        await talk.until(lambda: talk.seen("started", "a"))
        await talk.tell(first, renew=True)
        await asyncio.wait_for(stopped.wait(), 60)
        await talk.until_host_says(lambda said: {payload["host_id"] for _, payload in said} >= {first, agent.host_id})
        assert agent.host_id != first
        await talk.assign(agent.host_id, "b")
        await talk.ended("b")
    assert not talk.seen("completed", "a")


async def test_a_host_that_is_asked_for_less_starts_nothing_new_until_then(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    async with running_host(valkey_server.url, talk.tenant, echo) as agent:
        stop = {"level": "stop", "until_ms": int(time.time() * 1000) + 60_000}
        await talk.tell(agent.host_id, pressure=stop)
        await talk.assign(agent.host_id, "a")
        await asyncio.sleep(0.3)  # that nothing happens is what is tested
        assert not talk.seen("completed", "a")
        await talk.tell(agent.host_id, pressure={"level": "ok", "until_ms": 0})
        await talk.assign(agent.host_id, "b")
        await talk.ended("a")
        await talk.ended("b")
        soon = {"level": "stop", "until_ms": int(time.time() * 1000) + 200}
        await talk.tell(agent.host_id, pressure=soon)
        await talk.assign(agent.host_id, "c")
        await talk.ended("c")  # nobody says it again: it is over by itself


async def test_large_reports_are_compressed_for_an_engine_that_takes_that(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    async def work(task: Task) -> str:
        return "x" * 50_000 if task.task_id != "small" else "x"

    async with running_host(valkey_server.url, talk.tenant, work) as agent:
        await talk.assign(agent.host_id, "plain")
        await talk.ended("plain")
        assert talk.compressed == 0
        await talk.tell(agent.host_id, assign=[talk.assignment("packed")], accepts=["zlib", "of the future"])
        await talk.ended("packed")
        assert talk.compressed == 1
        assert talk.seen("completed", "packed")[0]["result"] == "x" * 50_000
        await talk.tell(agent.host_id, assign=[talk.assignment("small")], accepts=["zlib"])
        await talk.ended("small")
        assert talk.compressed == 1


async def test_a_host_whose_id_was_given_ends_when_it_was_given_up(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    options = host.HostOptions(redis_url=valkey_server.url, tenant=talk.tenant, types=("coder",), host_id="fixed")
    running = asyncio.create_task(host.AgentHost(echo, options).run())
    await talk.tell("fixed", renew=True)
    with pytest.raises(host.HostGivenUp):
        await asyncio.wait_for(running, 60)


async def test_nothing_new_starts_while_too_many_results_wait(
    valkey_server: ValkeyServer, talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "KEPT_BYTES_MAX", 100)
    async with running_host(valkey_server.url, talk.tenant, echo, slots=1) as agent:
        await talk.assign(agent.host_id, "a", "b")
        await talk.ended("a")
        assert agent._board.queued == 1
        await talk.tell(agent.host_id, consumed=[["a", 1, 1]])
        await talk.ended("b")


async def test_an_outage_costs_no_result_and_an_emptied_server_learns_everything_again(
    server_directory: Path, tenant: str
) -> None:
    server = ValkeyServer(server_directory / f"valkey-{tenant}")
    await server.start()
    gate = asyncio.Event()

    async def work(task: Task) -> str:
        if task.task_id == "during":
            await gate.wait()
        return task.task_id

    try:
        async with running_host(server.url, tenant, work, heartbeat_seconds=0.2) as agent:
            client = Redis.from_url(server.url)
            talk = Conversation(client, tenant)
            await talk.assign(agent.host_id, "before", "during")
            await talk.ended("before")
            await client.flushall()
            await client.aclose()
            await server.stop()
            gate.set()
            await server.start()
            client = Redis.from_url(server.url)
            after = Conversation(client, tenant, talk.execution_id)
            await after.ended("before", "during")
            await after.until_host_says(lambda said: any(kind == "agent.registered" for kind, _ in said))
            await after.assign(agent.host_id, "next")
            await after.ended("next")
            await client.aclose()
    finally:
        await server.stop()


async def test_a_host_starts_before_its_server_does(server_directory: Path, tenant: str) -> None:
    server = ValkeyServer(server_directory / f"valkey-{tenant}")
    await server.start()
    url = server.url
    await server.stop()
    async with running_host(url, tenant, echo, heartbeat_seconds=0.2) as agent:
        await asyncio.sleep(0.3)
        await server.start()
        client = Redis.from_url(url)
        talk = Conversation(client, tenant)
        await talk.assign(agent.host_id, "a")
        await talk.ended("a")
        await client.aclose()
        await server.stop()  # and it leaves although nobody hears it


async def test_a_host_process_ends_in_order_when_it_is_asked_to(
    valkey_server: ValkeyServer, talk: Conversation
) -> None:
    variables = {
        **os.environ,
        "ORCHESTRATION_AGENT_REDIS_URL": valkey_server.url,
        "ORCHESTRATION_AGENT_PARENT_PID": str(os.getpid()),
    }
    arguments = ["-m", "orchestration_agent", "--entry", "synthetic", "--tenant", talk.tenant, "--types", "synthetic"]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=variables)
    await talk.until_host_says(lambda said: said)
    host_id = (await talk.host_says())[0][1]["host_id"]
    await talk.assign(host_id, "a", input={"duration_ms": 200})
    await talk.until(lambda: talk.seen("started", "a"))
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 60) == 0
    await talk.ended("a")
    assert (await talk.host_says())[-1][0] == "agent.disconnected"


async def test_run_host_serves_until_it_is_interrupted(
    valkey_server: ValkeyServer, talk: Conversation, tmp_path: Path
) -> None:
    program = tmp_path / "agent.py"
    program.write_text(
        "from orchestration_agent import Task, run_host\n"
        "async def work(task: Task):\n    return task.action\n"
        "run_host(work, types=('actor',), slots=2)\n"
    )
    variables = {
        **os.environ,
        "ORCHESTRATION_AGENT_REDIS_URL": valkey_server.url,
        "ORCHESTRATION_AGENT_TENANT": talk.tenant,
    }
    process = await asyncio.create_subprocess_exec(sys.executable, str(program), env=variables)
    await talk.until_host_says(lambda said: said)
    await talk.assign((await talk.host_says())[0][1]["host_id"], "a", action="juggle")
    await talk.ended("a")
    assert talk.seen("completed", "a")[0]["result"] == "juggle"
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 60) == 0
