import asyncio
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from engine.embedded import temporal as temporal_module
from engine.embedded.addresses import HeldPort, hold_free_port, hold_port
from engine.embedded.postgres import PostgresServer
from engine.embedded.process import ChildProcess
from engine.embedded.server import EmbeddedServer
from engine.embedded.temporal import REQUEST_TIMEOUT_SECONDS, RETENTION_SECONDS, TemporalServer
from engine.embedded.valkey import ValkeyServer
from engine.errors import ConfigurationError, UnavailableError
from engine.postgres.cluster import ClusterUrls


async def query(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def test_all_three_serve_their_protocols(
    postgres_server: PostgresServer, valkey_server: ValkeyServer, temporal_server: TemporalServer
) -> None:
    assert await query(postgres_server.url, "SELECT 1") == 1
    async with Redis.from_url(valkey_server.url) as redis:
        assert await redis.ping()
    client = await Client.connect(temporal_server.url, namespace=temporal_server.namespace)
    assert await client.service_client.check_health()


async def test_the_migrated_database_is_ready_for_the_engine(migrated_database: ClusterUrls) -> None:
    assert await query(migrated_database.app, "SELECT to_regclass('public.workflow_executions') IS NOT NULL")


async def test_postgres_asks_for_a_password_and_listens_on_loopback_only(postgres_server: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await query(postgres_server.url_of("postgres", "wrong", "postgres"), "SELECT 1")
    assert await query(postgres_server.url, "SHOW listen_addresses") == "127.0.0.1"


async def test_valkey_asks_for_a_password_and_never_evicts(valkey_server: ValkeyServer) -> None:
    async with Redis.from_url(f"redis://:wrong@127.0.0.1:{valkey_server.port}/0") as redis:
        with pytest.raises(AuthenticationError):
            await redis.ping()
    async with Redis.from_url(valkey_server.url) as redis:
        settings = await redis.config_get("maxmemory-policy", "append*")
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"


async def test_the_durable_postgres_acknowledges_nothing_before_it_is_on_disk(open_directory: Path) -> None:
    server = PostgresServer(open_directory / "postgres")
    await server.start()
    try:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await query(server.url, f"SHOW {setting}") == "on"
    finally:
        await server.stop()


async def test_passwords_are_readable_by_their_owner_only(
    postgres_server: PostgresServer, valkey_server: ValkeyServer
) -> None:
    secrets = [
        postgres_server.directory / "password",
        valkey_server.directory / "password",
        valkey_server.directory / "valkey.conf",
    ]
    assert [stat.S_IMODE(path.stat().st_mode) for path in secrets] == [0o600] * 3


def test_no_password_stands_in_a_command_line(postgres_server: PostgresServer, valkey_server: ValkeyServer) -> None:
    for server in (postgres_server, valkey_server):
        assert server.password not in Path(f"/proc/{server.pid}/cmdline").read_text("utf-8")


@workflow.defn
class ShortTimer:
    @workflow.run
    async def run(self) -> float:
        began = workflow.time()
        await workflow.sleep(0.005)
        return workflow.time() - began


async def test_temporal_fires_short_timers_at_once(temporal_server: TemporalServer, tenant: str) -> None:
    """With the server's defaults they come about a second late."""
    client = await Client.connect(temporal_server.address)
    async with Worker(client, task_queue=tenant, workflows=[ShortTimer], workflow_runner=UnsandboxedWorkflowRunner()):
        waited = [
            await client.execute_workflow(ShortTimer.run, id=f"{tenant}/{number}", task_queue=tenant)
            for number in range(3)
        ]
    assert min(waited) < 0.5


@activity.defn
async def busy(seconds: float) -> None:
    await asyncio.sleep(seconds)


@workflow.defn
class Counter:
    def __init__(self) -> None:
        self.count = 0

    @workflow.signal
    def add(self) -> None:
        self.count += 1

    @workflow.run
    async def run(self, expected: int) -> int:
        await workflow.execute_local_activity(busy, 2.0, start_to_close_timeout=timedelta(seconds=10))
        await workflow.wait_condition(lambda: self.count == expected)
        return self.count


async def test_temporal_keeps_many_signals_that_come_during_a_workflow_task(
    temporal_server: TemporalServer, tenant: str
) -> None:
    """With the server's default of 100 the workflow task is failed by force."""
    signals = 400
    client = await Client.connect(temporal_server.address)
    async with Worker(
        client,
        task_queue=tenant,
        workflows=[Counter],
        activities=[busy],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        handle = await client.start_workflow(Counter.run, signals, id=tenant, task_queue=tenant)
        await asyncio.gather(*(handle.signal(Counter.add) for _ in range(signals)))
        assert await handle.result() == signals
    kinds = {event.event_type async for event in handle.fetch_history_events()}
    assert EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED not in kinds


async def described(server: TemporalServer) -> tuple[int, set[str]]:
    client = await Client.connect(server.address)
    answer = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=server.namespace))
    retention = answer.config.workflow_execution_retention_ttl.ToTimedelta().total_seconds()
    return int(retention), set(answer.config.custom_search_attribute_aliases.values())


async def test_the_namespace_has_its_retention_and_search_attributes(temporal_server: TemporalServer) -> None:
    retention, attributes = await described(temporal_server)
    assert retention == RETENTION_SECONDS
    assert attributes >= {"OrchestratorTenant", "OrchestratorPattern", "OrchestratorWorkflow"}


async def test_a_namespace_of_an_older_release_gets_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(temporal_module, "SEARCH_ATTRIBUTES", {"OrchestratorTenant": "Keyword"})
        server = TemporalServer(tmp_path, retention_seconds=24 * 3600)
        await server.start()
        await server.stop()
    server = TemporalServer(tmp_path)
    await server.start()
    try:
        retention, attributes = await described(server)
    finally:
        await server.stop()
    assert retention == RETENTION_SECONDS
    assert attributes == {"OrchestratorTenant", "OrchestratorPattern", "OrchestratorWorkflow"}


async def test_a_server_starts_again_on_the_same_port_with_its_data(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path)
    await server.start()
    port = server.port
    async with Redis.from_url(server.url) as redis:
        await redis.set("kept", "yes")
    await server.stop()
    assert not server.running
    await server.start()
    try:
        assert server.port == port
        async with Redis.from_url(server.url) as redis:
            assert await redis.get("kept") == b"yes"
    finally:
        await server.stop()


async def test_starting_a_running_server_changes_nothing(valkey_server: ValkeyServer) -> None:
    pid = valkey_server.pid
    await valkey_server.start()
    assert valkey_server.pid == pid


async def test_a_port_that_was_asked_for_and_is_taken_is_an_error_that_names_it(
    tmp_path: Path, taken_port: int
) -> None:
    with pytest.raises(ConfigurationError, match=f"port {taken_port}: it is in use"):
        await ValkeyServer(tmp_path, taken_port).start()


SERVERS_PORTS = [(PostgresServer, 0), (ValkeyServer, 0), *((TemporalServer, number) for number in range(4))]


@pytest.mark.parametrize(("kind", "number"), SERVERS_PORTS)
async def test_a_chosen_port_that_somebody_listens_on_meanwhile_is_given_up_for_another(
    kind: type[PostgresServer | ValkeyServer | TemporalServer],
    number: int,
    open_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Holding a port keeps engines apart; a program that insists can listen on it all the same."""
    chosen: list[int] = []
    with socket.socket() as intruder:

        def choose() -> HeldPort:
            held = hold_free_port()
            chosen.append(held.port)
            if len(chosen) == number + 1:
                intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                intruder.bind(("127.0.0.1", held.port))
                intruder.listen()
            return held

        monkeypatch.setattr("engine.embedded.server.hold_free_port", choose)
        server = kind(open_directory / "server")
        await server.start()
        await server.stop()
    assert len(chosen) == 2 * (len(chosen) // 2) > number, "all ports were chosen twice"
    assert server.port == chosen[len(chosen) // 2]


async def test_a_servers_port_is_nobody_elses_from_the_choice_to_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    class Watched(ValkeyServer):
        async def _prepare(self, descriptor: int) -> None:
            seen.append(can_be_bound(self._held[0].port))
            await super()._prepare(descriptor)

    server = Watched(tmp_path)
    await server.start()
    seen.append(can_be_bound(server.port))
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await server.wait()
    seen.append(can_be_bound(server.port))
    await server.stop()
    assert seen == [False, False, False]
    held = hold_port(server.port)
    assert held is not None
    held.release()


def can_be_bound(port: int) -> bool:
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def test_a_server_that_ends_in_its_start_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Temporal does when somebody has one of the ports that it takes by itself."""
    monkeypatch.setattr("engine.embedded.server.ATTEMPT_PAUSE_SECONDS", 0.01)
    endings = [1, 1]

    class Unlucky(ValkeyServer):
        def _new_process(self, ports: tuple[int, ...], descriptor: int) -> ChildProcess:
            process = super()._new_process(ports, descriptor)
            if endings:
                process._arguments = ["/bin/sh", "-c", f"exit {endings.pop()}"]
            return process

    server = Unlucky(tmp_path)
    await server.start()
    await server.stop()
    assert not endings


async def test_a_namespace_that_cannot_be_asked_for_a_while_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's first answers take long on a busy machine."""
    monkeypatch.setattr("engine.embedded.temporal.REQUEST_PAUSE_SECONDS", 0.01)
    failures: list[Exception | int] = [TimeoutError(), ConnectionResetError(), 503]

    class Slow(TemporalServer):
        async def _request(
            self,
            port: int,
            method: str,
            path: str,
            body: dict[str, Any] | None = None,
            timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
        ) -> tuple[int, dict[str, Any]]:
            if self._made.exists() and failures:
                failure = failures.pop()
                if isinstance(failure, Exception):
                    raise failure
                return failure, {"message": "starting"}
            return await super()._request(port, method, path, body, timeout_seconds)

    server = Slow(tmp_path)
    await server.start()
    try:
        assert not failures
        assert (await described(server))[0] == RETENTION_SECONDS
    finally:
        await server.stop()


async def test_a_namespace_that_is_never_described_is_an_error_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.embedded.temporal.REQUEST_PAUSE_SECONDS", 0.01)
    server = TemporalServer(tmp_path)

    async def refuse(*_: object) -> tuple[int, dict[str, Any]]:
        return 503, {"message": "no leader"}

    async def ready(ports: tuple[int, ...]) -> bool:
        return bool(ports)

    monkeypatch.setattr(server, "_request", refuse)
    monkeypatch.setattr(server, "_probe", ready)
    with pytest.raises(UnavailableError, match=r"refused the namespace's description: .*no leader"):
        await server.start()
    assert not server.running


async def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("a file where a directory belongs")
    server = ValkeyServer(tmp_path)
    with pytest.raises(UnavailableError, match=r"(?s)ended with exit code 1 before it was ready.*append-only"):
        await server.start()
    assert not server.running


async def test_a_directory_in_use_is_waited_for_and_then_reported(
    valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is held by the server itself, not by whoever started it."""
    monkeypatch.setattr("engine.embedded.server.LOCK_TIMEOUT_SECONDS", 0.1)
    with pytest.raises(UnavailableError, match="still locked"):
        await ValkeyServer(valkey_server.directory).start()
    assert valkey_server.running


async def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="valkey cannot use"):
        await ValkeyServer(tmp_path / "file" / "below").start()


@pytest.mark.parametrize("kind", [PostgresServer, ValkeyServer, TemporalServer])
async def test_before_the_start_there_is_no_port_and_nothing_to_wait_for(
    kind: type[PostgresServer | ValkeyServer | TemporalServer], tmp_path: Path
) -> None:
    server: EmbeddedServer = kind(tmp_path)
    with pytest.raises(UnavailableError, match="not started"):
        assert server.port
    with pytest.raises(UnavailableError, match="not started"):
        await server.wait()
    await server.stop()
    assert server.pid is None
    assert server.log_tail() == ""


async def test_a_server_answers_as_soon_as_start_returns(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path)
    began = time.monotonic()
    await server.start()
    assert server.start_seconds <= time.monotonic() - began
    async with Redis.from_url(server.url) as redis:
        assert await redis.ping()
    await server.stop()
    assert "Ready to accept connections" in server.log_tail() or "ready" in server.log_tail().lower()


async def test_a_temporal_that_was_killed_while_it_made_its_file_makes_it_anew(open_directory: Path) -> None:
    directory = open_directory / "temporal"
    directory.mkdir()
    (directory / "temporal.db").write_bytes(b"")
    (directory / "temporal.db-wal").write_bytes(b"half a schema")
    server = TemporalServer(directory)
    await server.start()
    await server.stop()
    assert (directory / "temporal.db").stat().st_size > 0
