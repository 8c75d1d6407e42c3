"""The three servers together, on one data directory."""

import asyncio
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from engine.embedded.engine import EmbeddedEngine, ServerPorts, StepDone
from engine.embedded.server import EmbeddedServer
from engine.errors import ConfigurationError, UnavailableError
from engine.security.keys import load_signing_key
from tests.integration.embedded.test_servers import query

DEADLINE_SECONDS = 90.0


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def poll(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.05)


async def test_it_shows_each_step_and_has_all_that_the_roles_need(open_directory: Path) -> None:
    steps: list[StepDone] = []
    async with EmbeddedEngine(open_directory / "data", progress=steps.append) as engine:
        assert {step.name for step in steps} == {"PostgreSQL", "database", "Valkey", "Temporal"}
        assert all(step.seconds > 0 for step in steps)
        environment = engine.environment()
        assert environment["DATABASE_URL"] == engine.database_url
        assert environment["REDIS_URL"] == engine.redis_url
        assert environment["TEMPORAL_ADDRESS"] == engine.temporal_address
        assert environment["TEMPORAL_NAMESPACE"] == "default"
        assert environment["ORCHESTRATOR_TEMPORAL_UI_URL"] == engine.temporal_ui
        assert await query(engine.database_url, "SELECT current_user") == "orchestrator_app"
        assert await query(engine.database_owner_url, "SELECT current_user") == "orchestrator_owner"
        key_file = Path(environment["ORCHESTRATOR_TOKEN_KEY_FILE"])
        assert load_signing_key(key_file)
        assert mode_of(key_file) == 0o600


async def test_roles_get_neither_the_owner_nor_servers_of_the_users_environment(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_OWNER_URL", "postgresql://elsewhere")
    monkeypatch.setenv("DATABASE_MAINTENANCE_URL", "postgresql://elsewhere")
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere")
    monkeypatch.setenv("ORCHESTRATOR_RATE_LIMIT_EXEMPT_LOOPBACK", "false")
    async with EmbeddedEngine(open_directory / "data") as engine:
        environment = engine.environment()
    assert not {key for key, value in environment.items() if "elsewhere" in value}
    assert environment["ORCHESTRATOR_RATE_LIMIT_EXEMPT_LOOPBACK"] == "false"


async def test_a_second_engine_on_the_same_data_directory_is_refused_and_another_directory_is_not(
    open_directory: Path,
) -> None:
    async with EmbeddedEngine(open_directory / "one") as first:
        with pytest.raises(ConfigurationError, match="another engine runs on the data directory"):
            await EmbeddedEngine(open_directory / "one").start()
        async with EmbeddedEngine(open_directory / "two") as second:
            assert first.database_url != second.database_url
            assert await query(first.database_url, "SELECT 1") == 1
            assert await query(second.database_url, "SELECT 1") == 1


async def test_started_again_it_has_its_data_and_key(open_directory: Path) -> None:
    async with EmbeddedEngine(open_directory / "data") as engine:
        await query(engine.database_owner_url, "CREATE TABLE kept ()")
        key = engine.token_key_file.read_bytes()
    async with EmbeddedEngine(open_directory / "data") as engine:
        assert await query(engine.database_owner_url, "SELECT to_regclass('kept') IS NOT NULL")
        assert engine.token_key_file.read_bytes() == key


async def test_servers_that_die_come_back_on_their_ports_with_their_data(open_directory: Path) -> None:
    messages: list[str] = []
    async with EmbeddedEngine(open_directory / "data", report=messages.append) as engine:
        database_url, redis_url = engine.database_url, engine.redis_url
        await query(engine.database_owner_url, "CREATE TABLE kept ()")
        async with Redis.from_url(redis_url) as redis:
            await redis.set("kept", "yes")
        servers: list[EmbeddedServer] = [engine.postgres, engine.valkey, engine.temporal]
        for server in servers:
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
        await poll(lambda: sum(message.endswith("is back") for message in messages) == len(servers))
        assert engine.database_url == database_url
        assert await query(engine.database_owner_url, "SELECT to_regclass('kept') IS NOT NULL")
        async with Redis.from_url(redis_url) as redis:
            assert await redis.get("kept") == b"yes"
    assert {message.split()[0] for message in messages} == {"postgres", "valkey", "temporal"}


async def test_a_server_that_cannot_come_back_is_reported_and_tried_again(open_directory: Path) -> None:
    messages: list[str] = []
    async with EmbeddedEngine(open_directory / "data", report=messages.append) as engine:
        configuration = engine.valkey.directory / "appendonlydir"
        configuration.rename(configuration.with_name("away"))
        configuration.touch()
        assert engine.valkey.pid is not None
        os.kill(engine.valkey.pid, signal.SIGKILL)
        await poll(lambda: any("cannot be started again" in message for message in messages))
        configuration.unlink()
        configuration.with_name("away").rename(configuration)
        await poll(lambda: "valkey is back" in messages)


async def test_when_one_server_cannot_start_none_is_left_running(open_directory: Path) -> None:
    data_dir = open_directory / "data"
    async with EmbeddedEngine(data_dir) as running:
        taken = running.temporal.port
        engine = EmbeddedEngine(open_directory / "other", ports=ServerPorts(temporal=taken))
        with pytest.raises(ConfigurationError, match=f"temporal cannot listen on port {taken}"):
            await engine.start()
    assert not any(server.running for server in (engine.postgres, engine.valkey, engine.temporal))
    async with EmbeddedEngine(open_directory / "other"):
        pass


async def test_a_data_directory_that_cannot_be_made_is_a_configuration_error(open_directory: Path) -> None:
    (open_directory / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be used"):
        await EmbeddedEngine(open_directory / "file" / "data").start()


async def test_there_are_no_addresses_before_the_start(open_directory: Path) -> None:
    with pytest.raises(UnavailableError, match="not started"):
        assert EmbeddedEngine(open_directory).database_url
