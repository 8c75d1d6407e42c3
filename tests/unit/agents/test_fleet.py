import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from engine.agents.fleet import HostFleet
from engine.contracts.catalogue import AgentType, Catalogue
from engine.contracts.hosts import Group
from engine.errors import ConfigurationError
from engine.settings import Settings
from tests.unit.agents.fakes import FakePort, FakeProcess, until

CODERS = Group("acme", "coder")
CATALOGUE = Catalogue(
    agents={
        "coder": AgentType(
            entry="python:m:f", hosts_max=2, slots=3, capabilities=("a,b",), python_path="/code",
            environment={"COLOUR": "red"},
        ),
        "helper": AgentType(entry="external"),
        "free": AgentType(entry="synthetic", capabilities="*"),
    }
)  # fmt: skip


class World:
    def __init__(self, tmp_path: Path) -> None:
        self.port = FakePort()
        self.processes: list[FakeProcess] = []
        self.refused = False
        self.settings = Settings(data_dir=tmp_path, redis_url="redis://:engine@h:1/0", _env_file=None)
        self.fleet = HostFleet(self.port, CATALOGUE, self.launch, self.settings, b"s" * 32)

    async def launch(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log_file: Path
    ) -> FakeProcess:
        if self.refused:
            raise ConfigurationError("cannot be started")
        self.processes.append(FakeProcess(name, arguments, environment, log_file))
        return self.processes[-1]

    @property
    def alive(self) -> list[FakeProcess]:
        return [process for process in self.processes if not process.ended.done()]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.fleet.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    world.port.down = False
    await world.fleet._stop_all()


async def test_hosts_that_are_wanted_are_started_up_to_the_types_limit(world: World) -> None:
    world.port.wish(CODERS, 5)
    await world.fleet.round()
    assert len(world.processes) == 2
    await world.fleet.round()
    assert len(world.processes) == 2


async def test_a_host_is_told_what_it_is_and_gets_neither_the_engines_login_nor_its_secrets(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    world.port.wish(CODERS, 1)
    await world.fleet.round()
    (process,) = world.processes
    assert process.argument("--entry") == "python:m:f"
    assert process.argument("--slots") == "3"
    assert process.argument("--types") == "coder"
    assert process.argument("--host-id") == process.name
    assert orjson.loads(process.argument("--capabilities")) == ["a,b"]
    assert process.argument("--python-path") == "/code"
    assert process.environment["COLOUR"] == "red"
    assert process.environment["ORCHESTRATION_AGENT_PARENT_PID"] == str(os.getpid())
    assert process.environment["ORCHESTRATION_AGENT_REDIS_URL"].startswith("redis://agent-acme:")
    everything = repr((process.arguments, process.environment))
    assert ":engine@" not in everything
    assert "DATABASE_URL" not in everything
    assert not any("redis://" in argument for argument in process.arguments)


async def test_types_that_start_elsewhere_or_are_unknown_are_left_alone(world: World) -> None:
    world.port.wish(Group("acme", "helper"), 1)
    world.port.wish(Group("acme", "unheard-of"), 1)
    await world.fleet.round()
    assert world.processes == []


async def test_logins_are_made_for_every_tenant_and_made_again_when_redis_lost_them(world: World) -> None:
    world.port.known = {"a", "b"}
    await world.fleet.round()
    assert world.port.logins == {"a", "b"}
    world.port.logins.clear()
    world.port.known = set()  # and its keys with them
    await world.fleet.round()
    assert world.port.logins == {"a", "b"}


async def test_a_host_that_dies_is_reported_at_once_and_replaced_under_a_new_id(world: World) -> None:
    async with world.running():
        world.port.wish(CODERS, 1)
        await until(lambda: world.processes)
        first = world.processes[0]
        first.end(-9)
        await until(lambda: len(world.processes) == 2)
    assert world.port.gone[0] == ("acme", first.name)
    assert world.processes[1].name != first.name


async def test_a_host_that_keeps_dying_is_started_ever_more_seldom(world: World) -> None:
    world.port.wish(CODERS, 1)
    await world.fleet.round()
    world.processes[0].end(1)
    await until(lambda: world.port.gone)
    state = world.fleet._groups[CODERS]
    first = state.delay_seconds
    await world.fleet.round()
    assert len(world.processes) == 1  # not before its time
    state.failed(0.0)
    assert state.delay_seconds == first * 2
    for _ in range(20):
        state.failed(0.0)
    assert state.delay_seconds == 30.0
    state.failed(60.0)
    assert state.delay_seconds == 0.4


async def test_a_host_that_cannot_be_started_is_tried_again_later(world: World) -> None:
    world.refused = True
    async with world.running():
        world.port.wish(CODERS, 1)
        await until(lambda: CODERS in world.fleet._groups and world.fleet._groups[CODERS].restart_at)
        world.refused = False
        await until(lambda: world.alive)


async def test_idle_hosts_are_stopped_when_the_wish_is_over(world: World) -> None:
    async with world.running():
        world.port.wish(CODERS, 1)
        await until(lambda: world.alive)
        world.port.wish(CODERS, 1, seconds=-1)
        await until(lambda: not world.alive and not world.fleet._groups)
    assert world.processes[0].stopped
    assert world.port.wishes == {}
    assert len(world.processes) == 1


async def test_a_wish_that_redis_lost_stands_until_its_time_is_over(world: World) -> None:
    async with world.running():
        world.port.wish(CODERS, 1)
        await until(lambda: world.alive)
        world.port.wishes.clear()
        world.processes[0].end(1)
        await until(lambda: len(world.alive) == 1)


async def test_hosts_go_on_while_redis_is_away_and_deaths_are_reported_afterwards(world: World) -> None:
    async with world.running():
        world.port.wish(CODERS, 2)
        await until(lambda: len(world.alive) == 2)
        world.port.down = True
        dead = world.processes[0]
        dead.end(-9)
        await until(lambda: world.fleet._left_behind)
        assert len(world.alive) == 1
        world.port.down = False
        await until(lambda: ("acme", dead.name) in world.port.gone)
        await until(lambda: len(world.alive) == 2)


async def test_stopping_the_fleet_stops_its_hosts_and_reports_them(world: World) -> None:
    async with world.running():
        world.port.wish(CODERS, 2)
        await until(lambda: len(world.alive) == 2)
    assert all(process.stopped for process in world.processes)
    assert sorted(host for _, host in world.port.gone) == sorted(process.name for process in world.processes)


async def test_hosts_of_a_fleet_that_was_killed_are_reported_by_the_next(world: World, tmp_path: Path) -> None:
    world.port.wish(CODERS, 2)
    await world.fleet.round()  # and killed: nothing is stopped, the list stays
    successor = World(tmp_path)
    async with successor.running():
        await until(lambda: len(successor.port.gone) == 2)
    assert {host for _, host in successor.port.gone} == {process.name for process in world.processes}


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"a": 1}'])
async def test_a_list_that_cannot_be_read_costs_nothing_but_time(world: World, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hosts.json").write_bytes(content)
    async with world.running():
        world.port.wish(Group("acme", "free"), 1)
        await until(lambda: world.alive)
    assert world.processes[0].argument("--capabilities") == "*"


async def test_a_list_that_cannot_be_written_costs_nothing_but_time(world: World, tmp_path: Path) -> None:
    (tmp_path / "hosts.json").mkdir()
    world.port.wish(CODERS, 1)
    await world.fleet.round()
    assert len(world.alive) == 1
