"""Suspicion and speed as the registry's monitor sees to them, with fakes and a clock that the test moves."""

from uuid import uuid4

import pytest

from engine.agents import health_watch, registry
from engine.errors import UnavailableError
from tests.unit.agents.fakes import record
from tests.unit.agents.test_registry import Clock, World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    clock = Clock()
    monkeypatch.setattr(registry, "time", clock)
    monkeypatch.setattr(health_watch, "time", clock)
    return World(clock)


async def test_a_host_that_is_silent_for_longer_than_usual_is_marked_and_its_executions_are_told(world: World) -> None:
    using = uuid4()
    world.maintenance.using["acme", "h1"] = [using]
    await world.rounds(10, "h1", "h2")
    await world.rounds(4, "h2")
    assert world.health.suspects == {}
    await world.rounds(1, "h2")
    assert world.health.suspects == {"h1": "silent for 5.0 s"}
    assert world.told("agent.suspect") == [(using, "h1")]
    assert world.hosts.state("acme", "h1") == "live"


async def test_an_execution_that_binds_to_a_host_as_it_becomes_suspect_is_told_a_second_later(world: World) -> None:
    await world.rounds(10, "h1")
    await world.rounds(5)
    late = uuid4()
    world.maintenance.using["acme", "h1"] = [late]
    await world.rounds(1)
    assert world.told("agent.suspect") == [(late, "h1")]
    await world.rounds(1)
    assert len(world.told("agent.suspect")) == 1


async def test_a_suspect_host_that_is_heard_has_recovered(world: World) -> None:
    using = uuid4()
    world.maintenance.using["acme", "h1"] = [using]
    await world.rounds(10, "h1")
    await world.rounds(6)
    await world.rounds(3, "h1")
    assert world.health.changes == [("h1", "suspect"), ("h1", "recovered")]
    assert world.told("agent.recovered") == [(using, "h1")]
    assert world.told("agent.disconnected") == []


async def test_a_suspect_host_that_stays_silent_is_gone_and_the_reason_is_kept(world: World) -> None:
    using = uuid4()
    world.maintenance.using["acme", "h1"] = [using]
    await world.rounds(10, "h1")
    await world.rounds(9)
    assert world.hosts.state("acme", "h1") == "gone"
    assert world.health.explained == {"h1": "silent for 9.0 s"}
    kinds = [kind for _, _, kind, _ in world.port.told]
    assert kinds == ["agent.suspect", "agent.suspect", "agent.disconnected"]


async def test_time_in_which_the_monitor_was_away_makes_nobody_suspect(world: World) -> None:
    await world.rounds(10, "h1")
    world.clock.now += 3.9  # busy: not long enough to forgive everything
    await world.monitor.round()
    await world.rounds(2)
    assert world.health.suspects == {}
    world.clock.now += 600
    await world.monitor.round()
    await world.rounds(4)
    assert world.health.suspects == {}


async def test_time_in_which_redis_did_not_answer_makes_nobody_suspect(world: World) -> None:
    await world.rounds(10, "h1")
    world.port.down = True
    for _ in range(7):
        world.clock.now += 1
        with pytest.raises(UnavailableError):
            await world.monitor.round()
    world.port.down = False
    await world.rounds(4)
    assert world.health.suspects == {}


async def test_executions_are_told_even_if_the_first_try_fails(world: World) -> None:
    using = uuid4()
    world.maintenance.using["acme", "h1"] = [using]
    await world.rounds(10, "h1")
    tell = world.port.tell_executions

    async def fails(*_: object, **__: object) -> None:
        raise UnavailableError("Redis does not answer")

    world.port.tell_executions = fails  # type: ignore[method-assign]  # the fault of this test
    await world.rounds(4)
    with pytest.raises(UnavailableError):
        await world.rounds(1)
    assert world.told("agent.suspect") == []
    world.port.tell_executions = tell  # type: ignore[method-assign]  # and its end
    await world.rounds(1)
    assert world.told("agent.suspect") == [(using, "h1")]
    assert world.health.changes == [("h1", "suspect")]


async def test_a_new_monitor_takes_over_suspicions_tells_of_them_and_ends_them(world: World) -> None:
    using = uuid4()
    world.maintenance.using["acme", "h1"] = [using]
    host = record("h1")
    world.hosts.put("acme", host.model_copy(update={"suspect_since": host.last_seen}))
    world.health.suspects["h1"] = "silent"
    await world.monitor._load()
    await world.rounds(1)
    assert world.told("agent.suspect") == [(using, "h1")]
    await world.rounds(1, "h1")
    assert world.told("agent.recovered") == [(using, "h1")]
    assert world.health.suspects == {}


async def test_a_host_that_leaves_is_not_suspected_of_anything(world: World) -> None:
    await world.rounds(10, "h1")
    world.port.say("acme", "agent.heartbeat", "h1", draining=True)
    await world.monitor.round()
    await world.rounds(7)
    assert world.health.changes == []
    assert "leaving" in world.health.explained["h1"]


async def test_nobody_is_judged_by_silence_while_reports_are_waiting_to_be_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 10,000 hosts a reading may not hold all: what is in the stream was said, even if nobody has read it yet."""
    await world.rounds(10, "h1")
    monkeypatch.setattr(registry, "REPORTS_READ_MAX", 2)
    for _ in range(20):
        await world.rounds(1, "h2", "h3")
    assert world.health.suspects == {}
    assert world.hosts.state("acme", "h1") == "live"
    await world.rounds(1, "h2")
    assert world.hosts.state("acme", "h1") == "gone"


async def test_a_slow_host_is_known_as_slow_and_executions_are_told_when_its_class_changes(world: World) -> None:
    using = uuid4()
    world.maintenance.using["acme", "h1"] = [using]
    await world.rounds(1, "h1", "h2")
    world.health.slow = [("acme", "h1", 0.27), ("acme", "h2", 0.9), ("acme", "stranger", 0.1)]
    await world.rounds(5, "h1", "h2")
    assert world.health.speeds == {"h1": 0.25}
    world.health.slow = [("acme", "h1", 0.31)]
    await world.rounds(5, "h1")
    assert world.port.told_speeds == [("h1", 0.25)]
    world.health.slow = [("acme", "h1", 1.0)]
    await world.rounds(5, "h1")
    assert world.port.told_speeds == [("h1", 0.25), ("h1", 1.0)]
    assert [host_id for _, host_id in world.told("agent.speed")] == ["h1", "h1"]
