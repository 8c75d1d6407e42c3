"""The bridge on a real Valkey: nothing is acknowledged that no tick consumed, and nothing is lost on the way."""

import asyncio
import os
import time
import zlib
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.contracts.events import AgentEventType
from engine.contracts.limits import (
    RESULT_BYTES_MAX,
    SIGNAL_BYTES_MAX,
    SIGNALS_UNCOVERED_BYTES_MAX,
    SIGNALS_UNCOVERED_MAX,
)
from engine.embedded.valkey import ValkeyServer
from engine.errors import InvalidParametersError, NotFoundError, UnavailableError
from engine.events import bridge as bridge_module
from engine.events import forwarding, keys
from engine.events.connection import connect
from engine.events.functions import Functions
from engine.settings import Settings
from tests.fakes.streams import eventually, until
from tests.integration.events.crossing import Crossing, completed, started


async def test_a_report_is_signalled_and_stays_pending_until_a_tick_consumes_it(crossing: Crossing) -> None:
    bridge = crossing.start()
    execution_id = crossing.execution()
    entry_id = await crossing.report(execution_id, completed())
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [entry_id])
    [batch] = crossing.launcher.batches(execution_id)
    assert (batch.low, batch.fence, batch.partition) == (entry_id, bridge._leases.fences[0], 0)
    assert batch.events[0].result == 1
    assert await crossing.pending() == 1
    await crossing.consume(bridge, execution_id, entry_id)
    assert await crossing.pending() == 0
    await until(lambda: not bridge._deliveries)
    assert bridge._held_bytes == 0


async def test_what_arrives_while_a_signal_is_under_way_goes_in_one_signal_and_in_order(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    crossing.launcher.gate.clear()
    entries = [await crossing.report(execution_id, completed("first"))]
    await until(lambda: len(crossing.launcher.signals) == 1)
    entries += [await crossing.report(execution_id, completed(f"t{n}")) for n in range(20)]
    await eventually(lambda: _is(crossing.pending(), 21))
    await asyncio.sleep(0)
    crossing.launcher.gate.set()
    await until(lambda: crossing.launcher.entry_ids(execution_id) == entries)
    assert len(crossing.launcher.signals) == 2
    assert {batch.low for batch in crossing.launcher.batches(execution_id)} == {entries[0]}


async def _is(value: Any, wanted: object) -> bool:
    return bool(await value == wanted)


async def test_a_tick_of_another_process_is_noticed(crossing: Crossing) -> None:
    bridge = crossing.start()
    execution_id = crossing.execution()
    entry_id = await crossing.report(execution_id, completed())
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [entry_id])
    await crossing.consume(None, execution_id, entry_id)
    await until(lambda: not bridge._deliveries)


async def test_a_waiting_tick_gets_events_without_a_signal(crossing: Crossing) -> None:
    bridge = crossing.start()
    execution_id = crossing.execution()
    with crossing.lingering.open(crossing.tenant, execution_id) as seat:
        entry_id = await crossing.report(execution_id, completed())
        [batch] = await seat.collect(5.0)
    assert batch.entry_id == entry_id
    assert crossing.launcher.signals == []
    await crossing.consume(bridge, execution_id, entry_id)
    assert not bridge._deliveries


async def test_what_was_handed_over_and_not_consumed_is_signalled(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.events.deliveries.REPEAT_AFTER_SECONDS", 0.2)
    crossing.start()
    execution_id = crossing.execution()
    with crossing.lingering.open(crossing.tenant, execution_id) as seat:
        entry_id = await crossing.report(execution_id, completed())
        assert await seat.collect(5.0)
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [entry_id])


async def test_nothing_overtakes_a_signal_that_is_not_covered(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    first = await crossing.report(execution_id, completed("a"))
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [first])
    with crossing.lingering.open(crossing.tenant, execution_id) as seat:
        second = await crossing.report(execution_id, completed("b"))
        await until(lambda: crossing.launcher.entry_ids(execution_id) == [first, second])
        assert await seat.collect(0) == []


async def test_another_tenant_that_names_an_execution_reaches_neither_its_signals_nor_its_ticks(
    crossing: Crossing,
) -> None:
    bridge = crossing.start()
    execution_id = crossing.execution()
    stranger = crossing.tenant + "-x"
    await crossing.redis.sadd("orc:tenants", stranger)
    mine = await crossing.report(execution_id, completed("mine"))
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [mine])
    with crossing.lingering.open(crossing.tenant, execution_id) as seat:
        await crossing.report(execution_id, completed("forged"), tenant=stranger)
        await until(lambda: len(crossing.launcher.signals) == 2)
        assert await seat.collect(0) == []
    tenants = [(tenant, args[0][0].events[0].task_id) for tenant, _, _, args in crossing.launcher.signals]
    assert tenants == [(crossing.tenant, "mine"), (stranger, "forged")]
    bridge.acknowledged(stranger, execution_id, [mine])
    assert list(bridge._deliveries[crossing.tenant, execution_id].held) == [mine]


async def test_large_results_travel_by_reference_and_small_ones_inline(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    await crossing.report(execution_id, completed("small", "s"), completed("large", "l" * 10_000))
    await until(lambda: crossing.launcher.batches(execution_id))
    small, large = crossing.launcher.batches(execution_id)[0].events
    assert (small.result, small.result_ref) == ("s", None)
    assert large.result is None
    assert large.result_ref is not None
    assert crossing.stores.payloads[large.result_ref] == b'"' + b"l" * 10_000 + b'"'


async def test_many_inline_results_of_one_entry_still_fit_into_a_signal(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    await crossing.report(execution_id, *(completed(f"t{n}", f"{n:04}" * 900) for n in range(500)))
    await until(lambda: crossing.launcher.batches(execution_id))
    [batch] = crossing.launcher.batches(execution_id)
    assert len(batch.model_dump_json()) < SIGNALS_UNCOVERED_BYTES_MAX
    assert sum(len(e.result) for e in batch.events if e.result is not None) <= SIGNAL_BYTES_MAX
    assert all((e.result is None) != (e.result_ref is None) for e in batch.events)


async def test_a_result_above_the_limit_fails_its_attempt_and_stops_nobody(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    await crossing.report(execution_id, completed("huge", "h" * RESULT_BYTES_MAX))
    await crossing.report(execution_id, completed("next"))
    await until(lambda: len(crossing.launcher.batches(execution_id)) == 2)
    huge = crossing.launcher.batches(execution_id)[0].events[0]
    assert huge.type is AgentEventType.TASK_FAILED
    assert huge.error is not None
    assert (huge.error.code, huge.error.retryable) == ("RESULT_TOO_LARGE", False)
    assert huge.result is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"x": "no-uuid", "b": "[]"}, b"execution_id"),
        ({"b": "["}, b"execution_id"),
        ({"nothing": "at all"}, b"execution_id"),
    ],
)
async def test_poison_goes_to_the_dead_letters_with_its_reason(
    crossing: Crossing, fields: dict[Any, Any], reason: bytes
) -> None:
    crossing.start()
    await crossing.redis.xadd(crossing.stream(), fields)
    await eventually(crossing.dead_letters)
    [letter] = await crossing.dead_letters()
    assert letter[b"partition"] == b"0"
    assert {name: letter[b"entry:" + name.encode()].decode() for name in fields} == fields
    assert reason in letter[b"reason"]
    await eventually(lambda: _is(crossing.waiting(), 0))
    execution_id = crossing.execution()
    await crossing.report(execution_id, completed())
    await until(lambda: crossing.launcher.batches(execution_id))


async def test_an_entry_in_another_partition_than_its_executions_is_a_dead_letter(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution(1)
    fields: dict[Any, Any] = {"x": execution_id, "b": b"[]"}
    await crossing.redis.xadd(crossing.stream(0), fields)
    await eventually(crossing.dead_letters)
    assert b"belongs into partition 1" in (await crossing.dead_letters())[0][b"reason"]
    assert crossing.launcher.signals == []


async def test_reports_that_fit_into_no_signal_are_dead_letters(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    error = {"code": "X", "message": "m" * 2000, "retryable": False}
    failed = [completed(f"{n}", type="agent.task_failed", result=None, error=error) for n in range(800)]
    await crossing.report(execution_id, *failed)
    await eventually(crossing.dead_letters)
    assert b"more than a signal can carry" in (await crossing.dead_letters())[0][b"reason"]


async def test_progress_is_noted_and_acknowledged_at_once(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    await crossing.report(execution_id, {"type": "agent.task_progress", "task_id": "a", "at_ms": 1, "progress": 0.5})
    await until(lambda: crossing.closings.progress)
    await eventually(lambda: _is(crossing.waiting(), 0))
    assert crossing.launcher.signals == []


async def test_reports_about_a_closed_execution_are_late_and_acknowledged(crossing: Crossing) -> None:
    bridge = crossing.start()
    execution_id = crossing.execution()
    crossing.closings.closed[crossing.tenant, execution_id] = True
    crossing.closings.counted.add("a")
    crossing.launcher.failure = NotFoundError("no open run")
    await crossing.report(execution_id, completed(), {"type": "agent.task_started", "task_id": "b", "at_ms": 1})
    await eventually(lambda: _is(crossing.waiting(), 0))
    assert await crossing.dead_letters() == []
    await until(lambda: not bridge._deliveries)


async def test_a_result_that_comes_too_late_to_count_is_a_dead_letter_as_it_was_written(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    crossing.closings.closed[crossing.tenant, execution_id] = True
    crossing.launcher.failure = NotFoundError("no open run")
    await crossing.report(execution_id, completed(result="x" * 5_000))
    await eventually(crossing.dead_letters)
    [letter] = await crossing.dead_letters()
    assert letter[b"reason"].startswith(b"too late")
    assert letter[b"entry:x"] == execution_id.encode()
    assert orjson.loads(letter[b"entry:b"]) == [completed(result="x" * 5_000)]


async def test_an_entry_that_is_refused_again_and_again_does_not_stop_its_partition(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, tried = crossing.stores.put_payload, 0

    async def refusing(tenant: str, execution_id: UUID, payload: bytes) -> str:
        nonlocal tried
        if b"poison" in payload:
            tried += 1
            raise InvalidParametersError("this cannot be stored")
        return await sound(tenant, execution_id, payload)

    monkeypatch.setattr(crossing.stores, "put_payload", refusing)
    crossing.start()
    poisoned, other = crossing.execution(), crossing.execution()
    await crossing.report(poisoned, completed(result="poison" * 1_000))
    entry_id = await crossing.report(other, completed(result="sound" * 1_000))
    await eventually(crossing.dead_letters)
    [letter] = await crossing.dead_letters()
    assert (letter[b"tries"], tried) == (b"5", 5)
    assert b"this cannot be stored" in letter[b"reason"]
    await until(lambda: crossing.launcher.entry_ids(other) == [entry_id])
    assert crossing.launcher.entry_ids(poisoned) == []


async def test_reports_about_an_execution_that_temporal_misses_are_held_until_it_is_there(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "TRIES_MAX", 1)
    crossing.start()
    execution_id = crossing.execution()
    crossing.closings.closed[crossing.tenant, execution_id] = False
    crossing.launcher.failure = NotFoundError("no open run")
    entry_id = await crossing.report(execution_id, completed())
    await until(lambda: crossing.launcher.tried >= 2)
    assert await crossing.waiting() == 1
    crossing.launcher.failure = None
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [entry_id])


async def test_reports_about_an_execution_that_nobody_knows_become_dead_letters_after_some_tries(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "TRIES_MAX", 2)
    bridge = crossing.start()
    execution_id = crossing.execution()
    crossing.launcher.failure = NotFoundError("no open run")
    await crossing.report(execution_id, completed())
    await eventually(crossing.dead_letters)
    assert crossing.launcher.tried == 2
    assert (await crossing.dead_letters())[0][b"reason"] == b"no such execution"
    await until(lambda: not bridge._deliveries)


async def test_not_knowing_whether_an_execution_is_closed_buries_nothing(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "TRIES_MAX", 1)
    crossing.start()
    crossing.closings.failure = UnavailableError("PostgreSQL does not answer")
    crossing.launcher.failure = NotFoundError("no open run")
    await crossing.report(crossing.execution(), completed())
    await until(lambda: crossing.launcher.tried >= 2)
    assert await crossing.waiting() == 1
    assert await crossing.dead_letters() == []


@pytest.mark.parametrize("failure", [UnavailableError("away"), TimeoutError(), ValueError("cannot be written")])
async def test_a_signal_that_fails_is_sent_again(
    crossing: Crossing, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "SIGNAL_TIMEOUT_SECONDS", 0.5)
    crossing.start()
    execution_id = crossing.execution()
    crossing.launcher.failure = failure
    entry_id = await crossing.report(execution_id, completed())
    await until(lambda: crossing.launcher.tried >= 1)
    crossing.launcher.failure = None
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [entry_id])


async def test_a_signal_that_hangs_is_given_up_and_sent_again(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "SIGNAL_TIMEOUT_SECONDS", 0.1)
    crossing.start()
    execution_id = crossing.execution()
    crossing.launcher.gate.clear()
    entry_id = await crossing.report(execution_id, completed())
    await until(lambda: len(crossing.launcher.entry_ids(execution_id)) >= 2)
    assert set(crossing.launcher.entry_ids(execution_id)) == {entry_id}


async def test_a_large_result_waits_for_the_database_and_keeps_its_place(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    crossing.stores.down = True
    entries = [
        await crossing.report(execution_id, completed("large", "l" * 10_000)),
        await crossing.report(execution_id, completed("small")),
    ]
    await eventually(lambda: _is(crossing.pending(), 2))
    crossing.stores.down = False
    await until(lambda: crossing.launcher.entry_ids(execution_id) == entries)


async def test_started_alone_waits_a_moment_and_goes_with_what_follows(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    began_at = time.monotonic()
    await crossing.report(execution_id, started())
    await until(lambda: crossing.launcher.batches(execution_id))
    assert time.monotonic() - began_at >= 0.1


async def test_a_successor_takes_over_what_a_dead_bridge_had_read_before_anything_new(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.events.partitions.LEASE_MS", 300)
    monkeypatch.setattr("engine.events.partitions.RENEW_SECONDS", 0.1)
    dead = crossing.start()
    execution_id = crossing.execution()
    first = await crossing.report(execution_id, completed("a"))
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [first])
    [old_fence] = {batch.fence for batch in crossing.launcher.batches(execution_id)}
    await crossing.kill(dead)
    second = await crossing.report(execution_id, completed("b"))
    crossing.launcher.signals.clear()
    successor = crossing.start()
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [first, second])
    batches = crossing.launcher.batches(execution_id)
    assert [batch.fence for batch in batches] == [successor._leases.fences[0]] * 2
    assert batches[0].fence > old_fence
    assert {batch.low for batch in batches} == {first}


async def test_a_bridge_that_lost_its_partition_lets_go_of_what_it_held(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.events.partitions.RENEW_SECONDS", 0.05)
    bridge = crossing.start()
    execution_id = crossing.execution()
    await crossing.report(execution_id, completed())
    await until(lambda: crossing.launcher.batches(execution_id))
    for partition in range(2):
        await crossing.redis.set(keys.partition_owner(partition), "another")
    await until(lambda: not bridge._deliveries)
    assert bridge._held_bytes == 0
    assert await crossing.pending() == 1


async def test_what_a_stopped_process_read_after_its_successor_took_over_is_written_again(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "STRAYS_CHECK_SECONDS", 0.1)
    crossing.start()
    execution_id = crossing.execution()
    entry_id = await crossing.report(execution_id, completed("a"))
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [entry_id])
    names: dict[Any, Any] = {crossing.stream(): ">"}
    async with crossing.redis.pipeline(transaction=True) as pipe:
        fields: dict[Any, Any] = {"x": execution_id, "b": b'[{"type":"agent.task_completed","task_id":"b","at_ms":1}]'}
        pipe.xadd(crossing.stream(), fields)
        pipe.xreadgroup(keys.GROUP, "stale-owner", names)
        stray_id, _ = await pipe.execute()
    await until(lambda: len(crossing.launcher.entry_ids(execution_id)) == 2)
    again = crossing.launcher.batches(execution_id)[1]
    assert again.entry_id > stray_id.decode()
    assert again.events[0].task_id == "b"
    assert await crossing.waiting() == 2


async def test_a_group_that_is_gone_is_made_again(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    first = await crossing.report(execution_id, completed())
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [first])
    await crossing.redis.delete(crossing.stream())
    second = await crossing.report(execution_id, completed())
    await until(lambda: second in crossing.launcher.entry_ids(execution_id))


async def test_reading_goes_on_after_a_lost_answer_and_in_order(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server carried the read out, and the answer was lost on the way."""
    bridge = crossing.bridge()
    read = bridge._reader.xreadgroup
    lost: list[Any] = []

    async def losing(*args: Any, **options: Any) -> Any:
        answer = await read(*args, **options)
        if answer and not lost:
            lost.append(answer)
            raise RedisConnectionError("Connection closed by server.")
        return answer

    monkeypatch.setattr(bridge._reader, "xreadgroup", losing)
    execution_id = crossing.execution()
    crossing._running[bridge] = asyncio.create_task(bridge.run())
    await until(lambda: bridge._recovered)
    first = await crossing.report(execution_id, completed("a"))
    await until(lambda: lost)
    second = await crossing.report(execution_id, completed("b"))
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [first, second])


async def test_a_full_memory_stops_reading_until_something_is_consumed(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "HELD_BYTES_MAX", 2_000)
    bridge = crossing.start()
    execution_id = crossing.execution()
    first = await crossing.report(execution_id, completed("a"))
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [first])
    second = await crossing.report(execution_id, completed("b"))
    await asyncio.sleep(0.3)
    assert crossing.launcher.entry_ids(execution_id) == [first]
    await crossing.consume(bridge, execution_id, first)
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [first, second])


async def test_ten_thousand_entries_that_nobody_covers_stay_within_the_credit(crossing: Crossing) -> None:
    began_at = time.monotonic()
    bridge = crossing.start()
    execution_id = crossing.execution()
    for _ in range(20):
        async with crossing.redis.pipeline(transaction=False) as pipe:
            for n in range(500):
                fields: dict[Any, Any] = {
                    "x": execution_id,
                    "b": b'[{"type":"agent.task_completed","task_id":"%d","at_ms":1,"result":"%s"}]' % (n, b"r" * 300),
                }
                pipe.xadd(crossing.stream(), fields)
            await pipe.execute()
    await until(lambda: len(_held(bridge, crossing.tenant, execution_id)) == 10_000, 60.0)
    within_five_seconds = time.monotonic() - began_at < 4.0
    signals = len(crossing.launcher.signals)
    batches = crossing.launcher.batches(execution_id)
    assert signals <= SIGNALS_UNCOVERED_MAX * (1 if within_five_seconds else 3)
    if within_five_seconds:
        assert sum(len(batch.model_dump_json()) for batch in batches) <= 2 * SIGNALS_UNCOVERED_BYTES_MAX
        assert len(batches) < 10_000
    assert [b.entry_id for b in batches[:2]] == list(_held(bridge, crossing.tenant, execution_id))[:2]


async def test_an_execution_that_is_stuck_keeps_no_other_waiting_and_gets_all_of_its_own_in_order(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "HELD_BYTES_MAX", 60 * 1024)
    stuck, other = crossing.execution(), crossing.execution()
    sent = [await crossing.report(stuck, completed(f"t{n}")) for n in range(150)]
    bridge = crossing.start()
    await until(lambda: (crossing.tenant, stuck) in bridge._parked)
    entry_id = await crossing.report(other, completed())
    await until(lambda: crossing.launcher.entry_ids(other) == [entry_id])
    held = _held(bridge, crossing.tenant, stuck)
    assert list(held) == sent[: len(held)]
    assert 0 < len(held) < 20

    seen: list[str] = []

    def news() -> set[str]:
        return set(crossing.launcher.entry_ids(stuck)) - set(seen)

    while len(seen) < len(sent):
        await until(news)
        batches = [batch for batch in crossing.launcher.batches(stuck) if batch.entry_id not in seen]
        new = list(dict.fromkeys(batch.entry_id for batch in batches))
        assert new == sent[len(seen) : len(seen) + len(new)]
        assert all(sent.index(batch.low) <= len(seen) for batch in batches), "below `low` all is consumed"
        seen += new
        await crossing.consume(bridge, stuck, *new)
    await eventually(lambda: _is(crossing.pending(), 1))
    assert bridge._held_bytes == bridge._deliveries[crossing.tenant, other].memory_bytes


def _held(bridge: bridge_module.Bridge, tenant: str, execution_id: str) -> dict[str, Any]:
    deliveries = bridge._deliveries.get((tenant, execution_id))
    return {} if deliveries is None else dict(deliveries.held)


async def test_a_partition_that_changes_hands_loses_nothing_and_leaves_no_strays(crossing: Crossing) -> None:
    first = crossing.start()
    await until(lambda: len(first._leases.fences) == 2)
    executions = [crossing.execution(partition) for partition in (0, 1)]
    sent = {e: [await crossing.report(e, completed(f"t{n}")) for n in range(5)] for e in executions}
    await until(lambda: all(len(set(crossing.launcher.entry_ids(e))) == 5 for e in executions))
    second = crossing.start()
    while len(second._leases.fences) < 1:  # reports keep coming while it goes over
        for e in executions:
            sent[e].append(await crossing.report(e, completed(f"t{len(sent[e])}")))
        await asyncio.sleep(0.01)
    moved = next(iter(second._leases.fences))
    assert set(first._leases.fences) == {1 - moved}
    execution_id = executions[moved]
    fence = second._leases.fences[moved]

    def taken_over() -> set[str]:
        return {b.entry_id for b in crossing.launcher.batches(execution_id) if b.fence == fence}

    await until(lambda: taken_over() >= set(sent[execution_id]))
    await until(lambda: not _held(first, crossing.tenant, execution_id))
    for e, bridge in ((execution_id, second), (executions[1 - moved], first)):
        await until(lambda e=e: set(crossing.launcher.entry_ids(e)) == set(sent[e]))  # type: ignore[misc]
        assert await crossing.waiting(executions.index(e)) == len(sent[e]), "nothing was written again"
        await crossing.consume(bridge, e, *sent[e])
        await eventually(lambda e=e: _is(crossing.waiting(executions.index(e)), 0))  # type: ignore[misc]


async def test_an_orderly_stop_releases_the_partitions(crossing: Crossing) -> None:
    bridge = crossing.start()
    await until(lambda: len(bridge._leases.fences) == 2)
    await crossing.stop(bridge)
    assert await crossing.redis.exists(keys.partition_owner(0), keys.partition_owner(1)) == 0


async def test_a_restart_of_redis_is_sat_out_and_nothing_is_lost(tmp_path: Path, tenant: str) -> None:
    first = ValkeyServer(tmp_path / "valkey")
    await first.start()
    port = first.port
    settings = Settings.model_validate({"redis_url": first.url})
    redis = connect(settings)
    await Functions(redis).load()
    await redis.sadd("orc:tenants", tenant)
    crossing = Crossing(redis, settings, tenant)
    execution_id = crossing.execution()
    bridge = crossing.start()
    server = first
    try:
        before = await crossing.report(execution_id, completed("a"))
        await until(lambda: crossing.launcher.entry_ids(execution_id) == [before])
        await first.stop()
        await until(lambda: not bridge._leases.fences, 20.0)
        server = ValkeyServer(tmp_path / "valkey", port)
        await server.start()
        after = await crossing.report(execution_id, completed("b"))
        await until(lambda: after in crossing.launcher.entry_ids(execution_id), 30.0)
        assert before in crossing.launcher.entry_ids(execution_id)
        assert {batch.low for batch in crossing.launcher.batches(execution_id)} == {before}
        await crossing.consume(bridge, execution_id, before, after)
        await eventually(lambda: _is(crossing.waiting(), 0))
    finally:
        await crossing.close()
        await redis.aclose()
        await server.stop()


def session(execution_id: str, **fields: str) -> dict[Any, Any]:
    told = {"event_type": "session.saved", "execution_id": execution_id, "timestamp": "2026-01-01T00:00:00Z"}
    return {**told, "payload": '{"session_id":"s-1"}', **fields}


async def test_what_the_keeper_of_sessions_tells_reaches_the_execution_as_an_external_event(
    crossing: Crossing,
) -> None:
    crossing.start()
    execution_id = crossing.execution()
    added: Any = await crossing.redis.xadd(crossing.stream(), session(execution_id))
    named = session(execution_id, event_type="session.resumed", event_id="r-1")
    await crossing.redis.xadd(crossing.stream(), named)
    await until(lambda: len(crossing.launcher.signals) == 2)
    (first,), (second,) = (arguments for _, _, name, arguments in crossing.launcher.signals if name == "external_event")
    assert (first.type, first.event_id, first.payload) == (
        "session.saved",
        f"0:{added.decode()}",
        {"session_id": "s-1"},
    )
    assert (second.type, second.event_id, second.at_ms) == ("session.resumed", "r-1", 1_767_225_600_000)
    await eventually(lambda: _is(crossing.waiting(), 0))


async def test_an_external_event_is_kept_until_temporal_has_it(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "TRY_AGAIN_SECONDS", 0.01)
    crossing.launcher.failure = UnavailableError("Temporal does not answer")
    crossing.start()
    await crossing.redis.xadd(crossing.stream(), session(crossing.execution()))
    await until(lambda: crossing.launcher.tried > forwarding.TRIES_MAX)
    assert await crossing.waiting() == 1
    crossing.launcher.failure = None
    await eventually(lambda: _is(crossing.waiting(), 0))
    assert len(crossing.launcher.signals) == 1


@pytest.mark.parametrize(("closed", "reason"), [(True, b"too late"), (None, b"no such execution")])
async def test_an_external_event_for_nobody_is_a_dead_letter_after_five_tries(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch, closed: bool | None, reason: bytes
) -> None:
    monkeypatch.setattr(forwarding, "TRY_AGAIN_SECONDS", 0.01)
    execution_id = crossing.execution()
    if closed:
        crossing.closings.closed[crossing.tenant, execution_id] = True
    crossing.launcher.failure = NotFoundError("no open run")
    crossing.start()
    await crossing.redis.xadd(crossing.stream(), session(execution_id))
    await eventually(crossing.dead_letters)
    [letter] = await crossing.dead_letters()
    assert letter[b"reason"].startswith(reason)
    assert (letter[b"tries"], crossing.launcher.tried) == (b"5", 5)
    assert letter[b"entry:payload"] == b'{"session_id":"s-1"}'


def _text(entry_id: bytes | str) -> str:
    """The client's types leave open which of the two it answers."""
    return entry_id.decode() if isinstance(entry_id, bytes) else entry_id


async def test_external_events_for_a_run_that_has_not_begun_take_no_room_and_keep_nobody_waiting(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "TRY_AGAIN_SECONDS", 0.01)
    early = crossing.execution()
    crossing.closings.closed[crossing.tenant, early] = False
    absent = _Absent(crossing, monkeypatch, early)
    told = [await crossing.redis.xadd(crossing.stream(), session(early)) for _ in range(forwarding.UNDER_WAY_MAX + 50)]
    bridge = crossing.start()
    await until(lambda: absent.tried > 5)
    assert bridge._forwarding._under_way == 0
    others = [crossing.execution(), crossing.execution(1)]
    for partition, execution_id in enumerate(others):
        await crossing.redis.xadd(crossing.stream(partition), session(execution_id))
        await crossing.report(execution_id, completed())
        await crossing.report(early, completed("early"))
    await until(lambda: all(crossing.launcher.batches(execution_id) for execution_id in [*others, early]))
    await until(lambda: all(_told(crossing, execution_id) for execution_id in others))
    stranger = crossing.tenant + "-x"
    await crossing.redis.sadd("orc:tenants", stranger)
    await crossing.report(others[0], completed(), tenant=stranger)
    await until(lambda: stranger in {tenant for tenant, *_ in crossing.launcher.signals})
    assert _told(crossing, early) == []
    absent.begun = True
    await until(lambda: len(_told(crossing, early)) == len(told), 20.0)
    assert _told(crossing, early) == [f"0:{_text(entry_id)}" for entry_id in told]
    await until(lambda: not bridge._forwarding._lanes)
    assert bridge._forwarding._under_way == 0
    assert await crossing.dead_letters() == []


async def test_external_events_without_room_come_again_in_order_and_none_is_lost(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "TRY_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(forwarding, "UNDER_WAY_MAX", 8)  # of which one tenant may have half
    monkeypatch.setattr(forwarding, "PER_EXECUTION_MAX", 2)
    crossing.launcher.failure = UnavailableError("Temporal does not answer")
    bridge = crossing.start()
    executions = [crossing.execution(n % 2) for n in range(6)]
    told: dict[str, list[str]] = {execution_id: [] for execution_id in executions}
    for _ in range(5):
        for n, execution_id in enumerate(executions):
            entry_id: Any = await crossing.redis.xadd(crossing.stream(n % 2), session(execution_id))
            told[execution_id].append(f"{n % 2}:{entry_id.decode()}")
    await eventually(lambda: _is(crossing.pending(), 15))
    await eventually(lambda: _is(crossing.pending(1), 15))
    assert bridge._forwarding._under_way == 4
    late = crossing.execution()
    await crossing.report(late, completed())
    await until(lambda: (crossing.tenant, late) in bridge._deliveries)
    crossing.launcher.failure = None
    await until(lambda: all(len(_told(crossing, execution_id)) == 5 for execution_id in executions), 20.0)
    assert {execution_id: _told(crossing, execution_id) for execution_id in executions} == told
    await until(lambda: not bridge._forwarding._lanes)
    assert bridge._forwarding._under_way == 0
    assert await crossing.dead_letters() == []


async def test_external_events_of_a_lost_partition_are_left_to_its_next_owner(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "TRY_AGAIN_SECONDS", 0.01)
    crossing.launcher.failure = UnavailableError("Temporal does not answer")
    bridge = crossing.start()
    await crossing.redis.xadd(crossing.stream(), session(crossing.execution()))
    await until(lambda: crossing.launcher.tried > 1)
    fences = dict(bridge._leases.fences)
    bridge._leases.fences.clear()
    await until(lambda: not bridge._forwarding._lanes)
    assert (bridge._forwarding._under_way, await crossing.pending()) == (0, 1)
    bridge._recovered.clear()
    bridge._leases.fences.update(fences)
    crossing.launcher.failure = None
    await eventually(lambda: _is(crossing.waiting(), 0))


async def test_an_external_event_that_breaks_its_forwarding_stays_pending_until_the_next_takeover(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossing.launcher.failure = RuntimeError("broken")
    bridge = crossing.start()
    await crossing.redis.xadd(crossing.stream(), session(crossing.execution()))
    await until(lambda: crossing.launcher.tried == 1 and not bridge._forwarding._lanes)
    assert (bridge._forwarding._under_way, await crossing.pending()) == (0, 1)
    crossing.launcher.failure = None
    bridge._recovered.clear()
    await eventually(lambda: _is(crossing.waiting(), 0))


class _Absent:
    """A run that Temporal does not have until it has begun: the others get their signals, and it its reports."""

    def __init__(self, crossing: Crossing, monkeypatch: pytest.MonkeyPatch, execution_id: str) -> None:
        self.begun = False
        self.tried = 0
        real = crossing.launcher.signal

        async def signal(tenant: str, execution: UUID, name: str, *arguments: Any) -> None:
            if name == "external_event" and str(execution) == execution_id and not self.begun:
                self.tried += 1
                raise NotFoundError("no open run")
            await real(tenant, execution, name, *arguments)

        monkeypatch.setattr(crossing.launcher, "signal", signal)


def _told(crossing: Crossing, execution_id: str) -> list[str]:
    """Ids of the external events that an execution was signalled, in order."""
    return [arguments[0].event_id for _, execution, name, arguments in crossing.launcher.signals
            if name == "external_event" and str(execution) == execution_id]  # fmt: skip


@pytest.mark.parametrize("fields", [{"payload": '"' + "x" * 70_000 + '"'}, {"timestamp": "never"},
                                    {"event_id": "x" * 300}, {"execution_id": "nobody"},
                                    {"payload": "[" * 101 + "]" * 101}])  # fmt: skip
async def test_external_events_that_are_not_understood_are_dead_letters(
    crossing: Crossing, fields: dict[str, str]
) -> None:
    crossing.start()
    await crossing.redis.xadd(crossing.stream(), session(crossing.execution()) | fields)
    await eventually(crossing.dead_letters)
    assert crossing.launcher.signals == []


@pytest.mark.parametrize("size_bytes", [100, 2_000_000])
async def test_compressed_reports_are_read_whatever_their_size(crossing: Crossing, size_bytes: int) -> None:
    crossing.start()
    execution_id = crossing.execution()
    result = os.urandom(size_bytes // 2).hex()
    packed = zlib.compress(orjson.dumps([completed(result=result)]))
    await crossing.redis.xadd(crossing.stream(), {"x": execution_id, "z": packed})
    await until(lambda: crossing.launcher.batches(execution_id))
    [batch] = crossing.launcher.batches(execution_id)
    [event] = batch.events
    stored = event.result if event.result_ref is None else orjson.loads(crossing.stores.payloads[event.result_ref])
    assert stored == result
