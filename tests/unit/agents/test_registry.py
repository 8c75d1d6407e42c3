import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from engine.agents import registry
from engine.agents.registry import RegistryMonitor
from engine.contracts.hosts import Group
from engine.errors import UnavailableError
from engine.settings import Settings
from tests.unit.agents.fakes import FakeHealth, FakeHosts, FakeMaintenance, FakePort, record, until


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time()


class World:
    """A monitor whose clock the test moves."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.port, self.hosts, self.maintenance = FakePort(), FakeHosts(), FakeMaintenance()
        self.health = FakeHealth(self.hosts)
        self.monitor = self.new_monitor()

    def new_monitor(self) -> RegistryMonitor:
        settings = Settings(_env_file=None)
        parts = (self.port, self.hosts, self.maintenance, self.health, settings)
        return RegistryMonitor(*parts)  # type: ignore[arg-type]  # the fakes have what the registry uses

    async def rounds(self, seconds: float, *beating: str) -> None:
        """Let time pass, with a round each second, while these hosts beat."""
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            for host_id in beating:
                self.port.say("acme", "agent.heartbeat", host_id)
            await self.monitor.round()

    def told(self, event: str) -> list[tuple[UUID, str]]:
        return [(execution_id, host_id) for _, execution_id, kind, host_id in self.port.told if kind == event]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    clock = Clock()
    monkeypatch.setattr(registry, "time", clock)
    return World(clock)


async def test_a_host_that_registers_is_stored_and_executions_that_wait_are_told(world: World) -> None:
    waiting = uuid4()
    world.maintenance.missing["acme", "coder"] = [waiting]
    world.port.say("acme", "agent.registered", "h1", slots=3)
    await world.monitor.round()
    assert world.hosts.rows["acme", "h1"].slots == 3
    assert world.told("agent.registered") == [(waiting, "h1")]
    await world.rounds(3, "h1")
    assert len(world.told("agent.registered")) == 1


async def test_what_a_host_understands_is_stored_and_a_change_of_it_at_once(world: World) -> None:
    world.port.say("acme", "agent.registered", "h1")
    await world.monitor.round()
    assert not world.hosts.rows["acme", "h1"].features
    world.port.say("acme", "agent.heartbeat", "h1", features=["chains"])
    await world.monitor.round()
    assert world.hosts.rows["acme", "h1"].features == ("chains",)


async def test_a_heartbeat_of_an_unknown_host_is_a_registration(world: World) -> None:
    world.port.say("acme", "agent.heartbeat", "h1")
    await world.monitor.round()
    assert world.hosts.state("acme", "h1") == "live"


async def test_being_seen_is_written_every_five_seconds_only(world: World) -> None:
    await world.rounds(11, "h1")
    assert len(world.hosts.writes) == 3


async def test_a_change_of_what_a_host_serves_is_written_at_once(world: World) -> None:
    await world.rounds(2, "h1")
    world.port.say("acme", "agent.registered", "h1", types=("coder", "tester"))
    await world.monitor.round()
    assert world.hosts.rows["acme", "h1"].types == ("coder", "tester")


async def test_a_silent_host_is_lost_and_its_executions_are_told(world: World) -> None:
    using = uuid4()
    world.maintenance.using["acme", "h1"] = [using]
    await world.rounds(2, "h1", "h2")
    await world.rounds(8, "h2")
    assert world.hosts.state("acme", "h1") == "live"
    await world.rounds(1, "h2")
    assert (world.hosts.state("acme", "h1"), world.hosts.state("acme", "h2")) == ("gone", "live")
    assert world.told("agent.disconnected") == [(using, "h1")]
    assert world.port.retired == ["h1"]


async def test_a_host_that_leaves_is_gone_at_once(world: World) -> None:
    using = uuid4()
    world.maintenance.using["acme", "h1"] = [using]
    await world.rounds(1, "h1")
    world.port.say("acme", "agent.disconnected", "h1")
    await world.monitor.round()
    assert world.hosts.state("acme", "h1") == "gone"
    assert world.told("agent.disconnected") == [(using, "h1")]


async def test_the_reason_of_a_loss_reaches_executions_whoever_reports_the_loss_again(world: World) -> None:
    using = uuid4()
    world.maintenance.using["acme", "h1"] = [using]
    await world.rounds(1, "h1")
    world.port.say("acme", "agent.disconnected", "h1", reason="OOMKilled: too much")
    world.port.say("acme", "agent.disconnected", "h1")
    await world.monitor.round()
    assert world.port.told_because == {"h1": "OOMKilled: too much"}


async def test_a_host_that_came_and_left_between_two_reads_is_gone(world: World) -> None:
    world.port.say("acme", "agent.registered", "h1")
    world.port.say("acme", "agent.disconnected", "h1")
    await world.monitor.round()
    assert ("acme", "h1") not in world.hosts.rows


async def test_an_execution_that_binds_to_a_dying_host_is_told_later(world: World) -> None:
    await world.rounds(1, "h1")
    world.port.say("acme", "agent.disconnected", "h1")
    await world.monitor.round()
    late = uuid4()
    world.maintenance.using["acme", "h1"] = [late]
    await world.rounds(2)
    assert (late, "h1") in world.told("agent.disconnected")
    world.maintenance.using.clear()
    await world.rounds(800)
    assert world.monitor._repeats == []


async def test_executions_are_told_before_the_host_is_marked_so_that_a_killed_monitor_loses_nothing(
    world: World,
) -> None:
    using = uuid4()
    world.maintenance.using["acme", "h1"] = [using]
    await world.rounds(1, "h1")
    world.port.say("acme", "agent.disconnected", "h1")
    tell = world.port.tell_executions

    async def killed(*arguments: object) -> None:
        raise UnavailableError("killed here")

    world.port.tell_executions = killed  # type: ignore[assignment, method-assign]  # the fault of this test
    with pytest.raises(UnavailableError):
        await world.monitor.round()
    assert world.hosts.state("acme", "h1") == "live"
    world.port.tell_executions = tell  # type: ignore[method-assign]  # and its end
    await world.monitor.round()
    assert world.told("agent.disconnected") == [(using, "h1")]
    assert world.hosts.state("acme", "h1") == "gone"


async def test_a_new_monitor_gives_known_hosts_a_full_period_before_they_are_lost(world: World) -> None:
    world.hosts.put("acme", record("h1"))
    world.clock.now += 7
    await world.monitor._load()
    await world.rounds(9)
    assert world.hosts.state("acme", "h1") == "live"
    await world.rounds(1)
    assert world.hosts.state("acme", "h1") == "gone"


async def test_a_new_monitor_asks_again_about_hosts_that_went_lately(world: World) -> None:
    using = uuid4()
    world.maintenance.using["acme", "recent"] = [using]
    world.maintenance.using["acme", "old"] = [using]
    world.hosts.put("acme", record("recent").model_copy(update={"state": "gone"}))
    long_ago = datetime.now(UTC) - timedelta(days=1)
    world.hosts.put("acme", record("old").model_copy(update={"state": "gone", "last_seen": long_ago}))
    world.port.known.add("acme")
    await world.monitor._load()
    await world.monitor._load()
    await world.rounds(1)
    assert world.told("agent.disconnected") == [(using, "recent")]


async def test_tenants_are_made_known_again_when_redis_was_emptied(world: World) -> None:
    await world.rounds(1, "h1")
    world.port.known.clear()
    await world.rounds(3, "h1")
    assert world.port.known == {"acme"}
    fresh = world.new_monitor()
    world.port.known.clear()
    await fresh._load()
    assert world.port.known == {"acme"}


async def test_no_host_is_lost_while_the_monitor_was_deaf(world: World) -> None:
    await world.rounds(2, "h1")
    world.port.down = True
    for _ in range(20):
        world.clock.now += 1
        with pytest.raises(UnavailableError):
            await world.monitor.round()
    world.port.down = False
    await world.rounds(9)
    assert world.hosts.state("acme", "h1") == "live"
    await world.rounds(1)
    assert world.hosts.state("acme", "h1") == "gone"


async def test_no_host_is_lost_because_the_monitor_itself_stood_still(world: World) -> None:
    await world.rounds(2, "h1")
    world.clock.now += 60
    await world.monitor.round()
    assert world.hosts.state("acme", "h1") == "live"


async def test_a_host_that_was_given_up_and_speaks_again_must_come_back_as_another(world: World) -> None:
    await world.rounds(1, "h1")
    await world.rounds(9)
    assert world.hosts.state("acme", "h1") == "gone"
    await world.rounds(3, "h1")
    assert world.port.renewed == ["h1"]
    assert world.hosts.state("acme", "h1") == "gone"
    await world.rounds(6, "h1")
    assert world.port.renewed == ["h1", "h1"]


async def test_a_draining_host_gets_no_new_work_and_is_awaited(world: World) -> None:
    using = uuid4()
    world.maintenance.using["acme", "h1"] = [using]
    await world.rounds(1, "h1")
    for _ in range(7):
        world.clock.now += 1
        world.port.say("acme", "agent.heartbeat", "h1", draining=True)
        await world.monitor.round()
    assert world.hosts.state("acme", "h1") == "gone"
    assert world.port.renewed == []
    assert world.told("agent.disconnected") == []
    world.port.say("acme", "agent.disconnected", "h1")
    await world.monitor.round()
    assert world.told("agent.disconnected") == [(using, "h1")]


async def test_a_draining_host_that_a_new_monitor_does_not_know_is_left_to_go(world: World) -> None:
    world.port.say("acme", "agent.heartbeat", "h1", draining=True)
    await world.monitor.round()
    assert ("acme", "h1") not in world.hosts.rows


async def test_reports_are_trimmed_behind_a_minute(world: World) -> None:
    assert registry._older("90000-7") == "30000-0"
    assert registry._older("5-1") == "0-0"
    await world.rounds(1, "h1")
    assert world.port.trimmed == {"acme": "0-0"}


async def test_the_wish_for_hosts_in_use_is_prolonged_and_for_others_is_not(world: World) -> None:
    world.maintenance.using["acme", "h1"] = [uuid4()]
    await world.rounds(1, "h1", "h2")
    assert world.port.asked == [(Group("acme", "coder"), 1)]
    await world.rounds(80, "h1", "h2")
    assert len(world.port.asked) == 2


async def test_without_tenants_a_round_passes_quietly(world: World) -> None:
    await world.monitor.round()
    assert world.port.told == []


async def test_a_monitor_that_does_not_lead_waits_and_takes_over_and_outages_do_not_end_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "STANDBY_SECONDS", 0.01)
    monkeypatch.setattr(registry, "TERM_SECONDS", 0.05)
    world = World(Clock())
    world.port.say("acme", "agent.registered", "h1")
    world.maintenance.leading = False
    running = asyncio.create_task(world.monitor.run())
    try:
        await asyncio.sleep(0.05)
        assert world.hosts.rows == {}
        world.maintenance.leading = world.hosts.down = True
        await asyncio.sleep(0.05)
        assert world.hosts.rows == {}
        world.hosts.down = False
        await until(lambda: ("acme", "h1") in world.hosts.rows)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
