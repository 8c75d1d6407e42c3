"""Real servers for the tests, one set a session (and a worker, under xdist), in a directory that is removed.

Tests share them and stay apart by their tenant: take the fixture `tenant` and use its name everywhere.
"""

import shutil
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from temporalio.worker import _workflow as temporal_worker

from engine.embedded.postgres import PostgresServer
from engine.embedded.temporal import TemporalServer
from engine.embedded.valkey import ValkeyServer
from engine.postgres.cluster import ClusterUrls, prepare_cluster
from engine.postgres.migrate import migrate
from tests.cluster.fixtures import cluster_program as cluster_program
from tests.cluster.fixtures import control_plane as control_plane
from tests.cluster.fixtures import kwok as kwok
from tests.cluster.fixtures import kwok_nodes as kwok_nodes
from tests.cluster.fixtures import put_last
from tests.cluster.fixtures import real_node as real_node
from tests.passwords import APP_PASSWORD, OWNER_PASSWORD


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    put_last(items)


@pytest.fixture(scope="session", autouse=True)
def logs_on_stderr() -> None:
    """As `configure` does for the engine's processes: commands' own output must not have log lines in it."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.__stderr__))


@pytest.fixture(scope="session", autouse=True)
def stalled_workflows_are_not_interrupted() -> None:
    """A workflow task that takes two seconds, which on a busy machine need not mean anything, fails as ever. But no
    exception is thrown into its thread: one that hits while coverage notes a line leaves coverage's lock held for good,
    and with it everything that is measured."""

    def leave_it(self: temporal_worker._RunningWorkflow) -> None:
        pass

    temporal_worker._RunningWorkflow.attempt_deadlock_interruption = leave_it  # type: ignore[method-assign]


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test uses."""
    return f"t-{uuid.uuid4().hex[:16]}"


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Not pytest's own: that one is closed to the user as whom PostgreSQL runs when the tests run as root."""
    directory = Path(tempfile.mkdtemp(prefix="orchestrator-tests-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
async def postgres_server(server_directory: Path) -> AsyncIterator[PostgresServer]:
    """`url` is the superuser's; most tests want `migrated_database`."""
    server = PostgresServer(server_directory / "postgres", durable=False)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def migrated_database(postgres_server: PostgresServer) -> ClusterUrls:
    """The engine's database, migrated: `app` is the URL the engine connects with, `owner` the one that migrates."""
    urls = await prepare_cluster(postgres_server.url, owner_password=OWNER_PASSWORD, app_password=APP_PASSWORD)
    await migrate(urls.owner)
    return urls


@pytest.fixture(scope="session")
async def valkey_server(server_directory: Path) -> AsyncIterator[ValkeyServer]:
    server = ValkeyServer(server_directory / "valkey")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def temporal_server(server_directory: Path) -> AsyncIterator[TemporalServer]:
    """`address`, `namespace` and `ui_url`."""
    server = TemporalServer(server_directory / "temporal")
    await server.start()
    yield server
    await server.stop()
