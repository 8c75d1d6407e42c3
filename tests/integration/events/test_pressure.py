"""Back-pressure on a real Valkey: who is told what, and what a full server still does."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from engine.contracts.pressure import Pressure
from engine.embedded.valkey import ValkeyServer
from engine.events import keys, pressure
from engine.events.connection import connect
from engine.events.functions import Functions
from engine.events.partitions import PartitionLeases
from engine.events.pressure import PressureGauge, PressureMonitor, level_of
from engine.ports import HostRecord
from engine.settings import Settings
from tests.integration.events.test_publications import WORKFLOW, Stage


class FakeHosts:
    def __init__(self, *hosts: tuple[str, HostRecord]) -> None:
        self.hosts = hosts

    async def silent(self, older_than_seconds: float, limit: int) -> Sequence[tuple[str, HostRecord]]:
        return self.hosts


def host(host_id: str, *features: str) -> HostRecord:
    now = datetime.now(UTC)
    return HostRecord(host_id=host_id, types=("a",), slots=1, features=features, registered_at=now, last_seen=now)


async def told(redis: Redis, tenant: str, host_id: str) -> list[str]:
    entries: Any = await redis.xrange(keys.tasks_stream(tenant, host_id))
    return [orjson.loads(fields[b"b"])["pressure"]["level"] for _, fields in entries]


@pytest.mark.parametrize(
    ("used", "before", "level"),
    [
        (0.69, Pressure.OK, Pressure.OK), (0.71, Pressure.OK, Pressure.SLOW), (0.66, Pressure.SLOW, Pressure.SLOW),
        (0.64, Pressure.SLOW, Pressure.OK), (0.86, Pressure.OK, Pressure.STOP), (0.81, Pressure.STOP, Pressure.STOP),
        (0.79, Pressure.STOP, Pressure.SLOW), (0.60, Pressure.STOP, Pressure.OK), (0.84, Pressure.SLOW, Pressure.SLOW),
    ],
)  # fmt: skip
def test_a_level_is_left_only_when_there_is_clearly_less(used: float, before: Pressure, level: Pressure) -> None:
    assert level_of(used, before) is level


async def test_hosts_that_understand_it_and_the_gateway_are_told_and_told_that_it_is_over(
    redis: Redis, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure, "ASK_SECONDS", 0.0)
    for name in ("h1", "old"):
        await redis.xadd(keys.tasks_stream(tenant, name), {"b": '{"pressure":{"level":"before"}}'})
    hosts = FakeHosts((tenant, host("h1", "pressure")), (tenant, host("old")), (tenant, host("gone", "pressure")))
    leases = PartitionLeases(Functions(redis), 2)
    await leases.renew()
    memory: Any = await redis.info("memory")
    monitor = PressureMonitor(redis, leases, hosts, int(memory["used_memory"] / 0.75))
    gauge = PressureGauge(redis)
    await monitor.measure()
    await monitor.measure()
    assert await gauge.level() is monitor.level is Pressure.SLOW
    monitor._bytes_max = int(memory["used_memory"])
    await monitor.measure()
    assert await gauge.level() is Pressure.STOP
    monitor._bytes_max = 10 * int(memory["used_memory"])
    await monitor.measure()
    assert await gauge.level() is Pressure.OK
    assert await told(redis, tenant, "h1") == ["before", "slow", "stop", "ok"]
    assert await told(redis, tenant, "old") == ["before"]
    assert not await redis.exists(keys.tasks_stream(tenant, "gone"))


async def test_whoever_does_not_hold_the_first_partition_measures_for_itself_only(redis: Redis, tenant: str) -> None:
    await redis.xadd(keys.tasks_stream(tenant, "h1"), {"b": '{"pressure":{"level":"before"}}'})
    hosts = FakeHosts((tenant, host("h1", "pressure")))
    monitor = PressureMonitor(redis, PartitionLeases(Functions(redis), 2), hosts, 1024**2)
    await monitor.measure()
    assert monitor.level is Pressure.STOP
    assert await told(redis, tenant, "h1") == ["before"]


async def test_a_server_that_does_not_answer_or_says_nonsense_stops_no_request(
    redis: Redis, valkey_server: ValkeyServer
) -> None:
    assert await PressureGauge(redis).level() is Pressure.OK
    await redis.set(keys.PRESSURE, "nonsense")
    assert await PressureGauge(redis).level() is Pressure.OK
    client = connect(Settings.model_validate({"redis_url": f"redis://127.0.0.1:{valkey_server.port}/0"}), repeat=False)
    assert await PressureGauge(client).level() is Pressure.OK
    await client.aclose()


async def test_under_pressure_published_events_are_kept_less_long(redis: Redis, tenant: str) -> None:
    await redis.sadd(keys.TENANTS, tenant)
    stage = Stage(redis, tenant)
    await stage.leases.renew()
    level = Pressure.OK
    stage.publications._pressure = lambda: level
    stage.publications._kept_seconds = 100.0
    view = keys.workflow_events_prefix(tenant) + str(WORKFLOW)
    half_minute_ago = int((datetime.now(UTC).timestamp() - 30) * 1000)
    for number in range(300):
        await redis.xadd(view, {"n": number}, id=f"{half_minute_ago}-{number}")
    await stage.publications.relieve(tenant)
    assert await redis.xlen(view) == 300
    level = Pressure.SLOW
    await stage.publications.relieve(tenant)
    assert await redis.xlen(view) < 300  # trimmed by whole blocks


async def test_a_full_server_refuses_agents_and_still_lets_ticks_consume(server_directory: Path) -> None:
    server = ValkeyServer(server_directory / "full-valkey")
    await server.start()
    try:
        redis = connect(Settings.model_validate({"redis_url": server.url}))
        functions = Functions(redis)
        await functions.load()
        stream: Any = keys.partition_stream("t", 0)
        await redis.xgroup_create(stream, keys.GROUP, id="0", mkstream=True)
        await redis.xadd(stream, {"b": "x" * 1000})
        names: dict[Any, Any] = {stream: ">"}
        read: Any = await redis.xreadgroup(keys.GROUP, "me", names)
        await redis.config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            await redis.xadd(stream, {"b": "one more"})
        tick = [keys.tick_key("t", "e"), stream, keys.facts_stream("t", 0), keys.tasks_stream("t", "h")]
        entry_id = read[0][1][0][0]
        arguments = [1, 60, keys.GROUP, "channel", "{}", 0, 0, "e", "w", "t", 0, 1, entry_id, "body"]
        assert await functions.ask("orc_write_tick", tick, arguments) == [1, 0]
        assert await redis.xlen(stream) == 0
        await functions.ask("orc_trim_facts", [tick[2], keys.facts_expanded("t", 0)], [1000])
        await redis.aclose()
    finally:
        await server.stop()
