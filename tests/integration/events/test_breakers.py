"""Shared breakers on a real server: exactly the probes that are allowed, seen by every process, whatever is lost."""

import asyncio
import json
import sys
import time
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from redis import Redis as DirectRedis
from redis.asyncio import Redis

from engine.breakers import CircuitBreaker, LocalBreakers
from engine.contracts.circuits import CallEnd, CircuitAsk, CircuitRule, CircuitState, CircuitView, Verdict
from engine.contracts.streams import partition_of
from engine.embedded.valkey import ValkeyServer
from engine.errors import CircuitOpenError, UnavailableError
from engine.events import keys
from engine.events.breakers import WOKEN_AT_ONCE, RedisBreakers
from engine.events.connection import connect
from engine.events.functions import Functions
from engine.events.wire import decode_report
from engine.settings import Settings

SERVICE = "agent:synthetic"
EXECUTION = "00000000-0000-4000-8000-000000000001"
RULE = CircuitRule(failure_threshold=3, timeout_ms=30_000)
MODEL_DATABASE = 5
CALLERS = 60


PARTITIONS = 4


@pytest.fixture
def breakers(redis: Redis) -> RedisBreakers:
    return RedisBreakers(redis, Functions(redis), PARTITIONS)


async def ask(breakers: RedisBreakers, tenant: str | None, rule: CircuitRule = RULE, **fields: Any) -> CircuitView:
    (view,) = await breakers.consult(tenant, rule, [CircuitAsk(service=SERVICE, **fields)], EXECUTION)
    return view


def end(verdict: Verdict, call_id: str, counted_as: str = "") -> CallEnd:
    return CallEnd(verdict=verdict, call_id=call_id, counted_as=counted_as)


async def open_it(breakers: RedisBreakers, tenant: str | None) -> CircuitView:
    ends = tuple(end("failed", f"call-{n}") for n in range(RULE.failure_threshold))
    return await ask(breakers, tenant, ended=ends)


async def let_time_pass(redis: Redis, tenant: str | None, ms: int) -> None:
    """The breaker's times grow older by so much."""
    key = keys.breaker(tenant, SERVICE)
    for field, value in (await redis.hgetall(key)).items():
        if field == b"due" or field[:2] in (b"p:", b"f:"):
            await redis.hset(key, field, str(int(value) - ms))


async def test_it_opens_with_the_deciding_failure_and_says_by_whom(breakers: RedisBreakers, tenant: str) -> None:
    before = await ask(breakers, tenant, ended=(end("failed", "a"), end("failed", "b")))
    assert (before.state, before.failures) == (CircuitState.CLOSED, 2)
    view = await ask(breakers, tenant, ended=(end("failed", "c"),))
    assert (view.state, view.failures, view.threshold, view.opened_by) == (CircuitState.OPEN, 3, 3, EXECUTION)
    assert 29_000 < view.retry_in_ms <= 30_000
    refused = await ask(breakers, tenant, wanted=("d",))
    assert not refused.admitted


async def test_a_failure_that_is_told_twice_counts_once(breakers: RedisBreakers, tenant: str) -> None:
    for _ in range(5):
        view = await ask(breakers, tenant, ended=(end("failed", "a"), end("failed", "b", "host-1")))
    view = await ask(breakers, tenant, ended=(end("failed", "c", "host-1"),))
    assert (view.state, view.failures, view.total, view.counted) == (CircuitState.CLOSED, 2, 2, 0)


async def test_half_open_admits_exactly_its_probes_to_many_callers_at_once(
    breakers: RedisBreakers, redis: Redis, redis_settings: Settings, tenant: str
) -> None:
    other = connect(redis_settings)
    stores = [breakers, RedisBreakers(other, Functions(other))]
    rule = RULE.model_copy(update={"half_open_probes": 3})
    await open_it(breakers, tenant)
    await let_time_pass(redis, tenant, RULE.timeout_ms)
    try:
        views = await asyncio.gather(
            *(ask(stores[n % 2], tenant, rule, wanted=(f"probe-{n}",)) for n in range(CALLERS))
        )
    finally:
        await other.aclose()
    admitted = [n for n, view in enumerate(views) if view.admitted]
    assert len(admitted) == 3
    assert {view.state for view in views} == {CircuitState.HALF_OPEN}
    again = await ask(breakers, tenant, rule, wanted=(f"probe-{admitted[0]}",))
    assert again.admitted
    freed = await ask(breakers, tenant, rule, ended=(end("released", f"probe-{admitted[1]}"),), wanted=("late",))
    assert freed.admitted
    closed = await ask(breakers, tenant, rule, ended=(end("worked", "late"),))
    assert (closed.state, closed.failures) == (CircuitState.CLOSED, 0)


async def test_what_is_no_probe_decides_nothing_while_it_is_not_closed(
    breakers: RedisBreakers, redis: Redis, tenant: str
) -> None:
    await open_it(breakers, tenant)
    assert (await ask(breakers, tenant, ended=(end("worked", "old"),))).state is CircuitState.OPEN
    await let_time_pass(redis, tenant, RULE.timeout_ms)
    await ask(breakers, tenant, wanted=("probe",))
    verdicts: tuple[Verdict, ...] = ("worked", "failed", "released")
    for verdict in verdicts:
        assert (await ask(breakers, tenant, ended=(end(verdict, "old"),))).state is CircuitState.HALF_OPEN
    view = await ask(breakers, tenant, ended=(end("failed", "probe"),))
    assert view.state is CircuitState.OPEN
    assert view.retry_in_ms > 29_000


async def test_tenants_do_not_see_each_others_breakers(breakers: RedisBreakers, tenant: str) -> None:
    await open_it(breakers, tenant)
    assert (await ask(breakers, f"{tenant}-2")).state is CircuitState.CLOSED
    assert (await ask(breakers, None)).state is CircuitState.CLOSED
    assert [view.service for view in await breakers.known(tenant)] == [SERVICE]
    assert await breakers.known(f"{tenant}-2") == []


async def test_it_falls_closed_when_the_server_has_lost_everything(
    breakers: RedisBreakers, redis: Redis, tenant: str
) -> None:
    await open_it(breakers, tenant)
    await redis.flushdb()
    await redis.function_flush()
    view = await ask(breakers, tenant, wanted=("a",))
    assert (view.state, view.admitted) == (CircuitState.CLOSED, True)
    assert (await open_it(breakers, tenant)).state is CircuitState.OPEN


async def test_a_reset_closes_it(breakers: RedisBreakers, tenant: str) -> None:
    await open_it(breakers, tenant)
    assert await breakers.reset(tenant, SERVICE)
    assert not await breakers.reset(tenant, SERVICE)
    assert (await ask(breakers, tenant)).state is CircuitState.CLOSED
    assert await breakers.known(tenant) == []


async def told(redis: Redis, tenant: str) -> dict[str, list[tuple[str, str, int]]]:
    """What executions have been told, by execution."""
    found: dict[str, list[tuple[str, str, int]]] = {}
    for partition in range(PARTITIONS):
        entries: Any = await redis.xrange(keys.partition_stream(tenant, partition))
        for _, fields in entries:
            report = decode_report(fields)
            assert partition_of(report.execution_id, PARTITIONS) == partition
            found.setdefault(report.execution_id, []).extend((e.type, e.service, e.at_ms) for e in report.events)
    return found


async def wait_for(breakers: RedisBreakers, tenant: str, *execution_ids: str) -> None:
    for execution_id in execution_ids:
        (view,) = await breakers.consult(tenant, RULE, [CircuitAsk(service=SERVICE)], execution_id)
        assert view.state is not CircuitState.CLOSED


async def test_a_reset_wakes_every_execution_that_waits_for_it_once(
    breakers: RedisBreakers, redis: Redis, tenant: str
) -> None:
    waiting = [str(uuid4()) for _ in range(WOKEN_AT_ONCE + 7)]
    await open_it(breakers, tenant)
    await wait_for(breakers, tenant, *waiting, *waiting[:3])
    assert 0 < await redis.ttl(keys.breaker_waiting(tenant, SERVICE)) <= 7_200
    before = (await ask(breakers, tenant)).at_ms
    assert await breakers.reset(tenant, SERVICE)
    found = await told(redis, tenant)
    assert found.keys() == {*waiting, EXECUTION}  # the one whose failure opened it waits as well
    for reports in found.values():
        ((kind, service, at_ms),) = reports
        assert (kind, service) == ("circuit_breaker.closed", SERVICE)
        assert at_ms >= before > 0
    assert not await redis.exists(keys.breaker_waiting(tenant, SERVICE))


async def test_the_probe_that_closes_it_says_how_many_others_wait(
    breakers: RedisBreakers, redis: Redis, tenant: str
) -> None:
    first, second = str(uuid4()), str(uuid4())
    await open_it(breakers, tenant)
    await wait_for(breakers, tenant, first, second)
    await let_time_pass(redis, tenant, RULE.timeout_ms)
    assert (await ask(breakers, tenant, wanted=("probe",))).waiting == 0
    view = await ask(breakers, tenant, ended=(end("worked", "probe"),))
    assert (view.state, view.waiting) == (CircuitState.CLOSED, 2)  # and not itself, who has its answer
    assert (await ask(breakers, tenant)).waiting == 0
    assert await breakers.wake(tenant, SERVICE, view.at_ms) == 2
    assert (await told(redis, tenant)).keys() == {first, second}
    assert await breakers.wake(tenant, SERVICE, view.at_ms) == 0


async def test_nobody_waits_for_breakers_of_the_engines_own(breakers: RedisBreakers, redis: Redis) -> None:
    await open_it(breakers, None)
    assert not await redis.exists(keys.breaker_waiting(None, SERVICE))
    assert await breakers.reset(None, SERVICE)


async def test_a_breaker_keeps_no_more_than_it_needs(breakers: RedisBreakers, redis: Redis, tenant: str) -> None:
    rule = RULE.model_copy(update={"failure_threshold": 1000})
    for first in range(0, 500, 50):
        await ask(breakers, tenant, rule, ended=tuple(end("failed", f"call-{first + n}") for n in range(50)))
    key = keys.breaker(tenant, SERVICE)
    assert await redis.hlen(key) < 80
    assert 0 < await redis.ttl(key) <= 7_200
    assert (await ask(breakers, tenant, rule)).failures == 500


async def test_failures_by_agent_type_are_counted(breakers: RedisBreakers, tenant: str) -> None:
    await breakers.count_failures(tenant, {"synthetic": 2, "coder": 1})
    await breakers.count_failures(tenant, {"synthetic": 1})
    assert await breakers.failures(tenant) == {"coder": 1, "synthetic": 3}


async def test_a_server_that_does_not_answer_is_an_outage(tenant: str) -> None:
    redis = connect(Settings.model_validate({"redis_url": "redis://127.0.0.1:1/0"}), repeat=False)
    breakers = RedisBreakers(redis, Functions(redis), PARTITIONS)
    calls = (
        breakers.consult(tenant, RULE, [CircuitAsk(service=SERVICE)], ""),
        breakers.known(tenant),
        breakers.reset(tenant, SERVICE),
        breakers.wake(tenant, SERVICE, 1),
        breakers.count_failures(tenant, {"a": 1}),
        breakers.failures(tenant),
    )
    for call in calls:
        with pytest.raises(UnavailableError):
            await call
    await redis.aclose()


OTHER_PROCESS = """
import asyncio, json, sys
from engine.breakers import CircuitBreaker
from engine.errors import CircuitOpenError
from engine.events.breakers import RedisBreakers
from engine.events.connection import connect
from engine.events.functions import Functions
from engine.settings import Settings

async def main():
    redis = connect(Settings.model_validate({"redis_url": sys.argv[1]}))
    breaker = CircuitBreaker(sys.argv[2], RedisBreakers(redis, Functions(redis)))
    try:
        await breaker.admit()
    except CircuitOpenError:
        pass
    print(json.dumps({"state": breaker.state.value}))
    await redis.aclose()

asyncio.run(main())
"""


async def test_a_second_process_sees_the_state(redis_settings: Settings, breakers: RedisBreakers, tenant: str) -> None:
    async def seen_elsewhere() -> str:
        url = redis_settings.redis_url.get_secret_value()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OTHER_PROCESS, url, f"api-{tenant}", stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), timeout=30)
        assert process.returncode == 0
        return str(json.loads(output)["state"])

    breaker = CircuitBreaker(f"api-{tenant}", breakers, RULE)
    assert await seen_elsewhere() == "closed"
    for _ in range(RULE.failure_threshold):
        await breaker.record_failure(await breaker.admit())
    assert await seen_elsewhere() == "open"
    with pytest.raises(CircuitOpenError):
        await breaker.admit()
    await breakers.reset(None, breaker.service)


# Against a model ---------------------------------------------------------------------------------------------


class DirectFunctions(Functions):
    """Without an event loop's client: each call has its answer before anything else happens."""

    def __init__(self, redis: DirectRedis) -> None:
        self._direct = redis

    async def ask(self, name: str, keys: list[str], args: list[Any]) -> Any:
        return self._direct.fcall(name, len(keys), *keys, *args)


class BreakerMachine(RuleBasedStateMachine):
    """The shared breaker and the one in memory answer alike, whatever comes, in whatever order, repeated or not."""

    redis: DirectRedis
    calls = st.integers(0, 9).map(lambda n: f"call-{n}")
    ends = st.lists(
        st.builds(CallEnd, verdict=st.sampled_from(["failed", "worked", "released"]), call_id=calls, counted_as=calls),
        max_size=4,
    )

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushdb()
        self.base = time.monotonic()
        self.ahead_ms = 0
        self.local = LocalBreakers(lambda: self.base + self.ahead_ms / 1000)
        self.shared = RedisBreakers(self.redis, DirectFunctions(self.redis))  # type: ignore[arg-type]  # only its functions are used

    @initialize(threshold=st.integers(1, 4), probes=st.integers(1, 3))
    def begin(self, threshold: int, probes: int) -> None:
        self.rule = CircuitRule(failure_threshold=threshold, timeout_ms=600_000, half_open_probes=probes)

    @rule(ended=ends, wanted=st.lists(calls, max_size=4, unique=True), lease_s=st.sampled_from([60, 900]))
    def step(self, ended: list[CallEnd], wanted: list[str], lease_s: int) -> None:
        call = CircuitAsk(service=SERVICE, ended=tuple(ended), wanted=tuple(wanted), lease_ms=lease_s * 1000)
        (expected,) = _at_once(self.local.consult("t", self.rule, [call], "me"))
        (found,) = _at_once(self.shared.consult("t", self.rule, [call], "me"))
        assert abs(found.retry_in_ms - expected.retry_in_ms) < 30_000
        shared_only = {"retry_in_ms": 0, "at_ms": 0, "waiting": 0}
        assert found.model_copy(update=shared_only) == expected.model_copy(update=shared_only)
        assert found.free <= self.rule.half_open_probes

    @rule(minutes=st.sampled_from([2, 5, 11]))
    def pass_time(self, minutes: int) -> None:
        """By leaps that are much longer than the test itself takes."""
        self.ahead_ms += minutes * 60_000
        key = keys.breaker("t", SERVICE)
        stored: Any = self.redis.hgetall(key)
        for field, value in stored.items():
            if field == b"due" or field[:2] == b"p:":
                self.redis.hset(key, field, str(int(value) - minutes * 60_000))


def _at_once(call: Any) -> Any:
    """Neither breaker waits for anything here."""
    with pytest.raises(StopIteration) as stop:
        call.send(None)
    return stop.value.value


async def test_shared_and_local_breakers_behave_alike(valkey_server: ValkeyServer) -> None:
    url = valkey_server.url.removesuffix("/0") + f"/{MODEL_DATABASE}"
    client = connect(Settings.model_validate({"redis_url": url}))
    await Functions(client).load()
    await client.aclose()
    direct = DirectRedis.from_url(url, protocol=2)
    machine = type("Machine", (BreakerMachine,), {"redis": direct})
    try:
        run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))
    finally:
        direct.close()
