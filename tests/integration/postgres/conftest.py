"""One migrated database a session; tests stay apart by tenant."""

from collections.abc import AsyncIterator

import pytest

from engine.embedded.postgres import PostgresServer
from engine.postgres.cluster import ClusterUrls, prepare_cluster
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.dispatch import PostgresDispatchStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.hosts import PostgresHostStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.migrate import migrate
from engine.postgres.operations import PostgresOperationLog
from engine.postgres.pool import Database
from engine.settings import Settings
from tests.passwords import APP_PASSWORD, OWNER_PASSWORD

DATABASE_NAME = "postgres_tests"


@pytest.fixture(scope="session")
async def urls(postgres_server: PostgresServer) -> ClusterUrls:
    urls = await prepare_cluster(
        postgres_server.url, owner_password=OWNER_PASSWORD, app_password=APP_PASSWORD, database=DATABASE_NAME
    )
    await migrate(urls.owner)
    return urls


@pytest.fixture(scope="session")
async def database(urls: ClusterUrls) -> AsyncIterator[Database]:
    database = await Database.connect(Settings(database_url=urls.app, database_pool_max=8))
    yield database
    await database.close()


@pytest.fixture(scope="session")
def definitions(database: Database) -> PostgresDefinitionStore:
    return PostgresDefinitionStore(database)


@pytest.fixture(scope="session")
def executions(database: Database) -> PostgresExecutionStore:
    return PostgresExecutionStore(database)


@pytest.fixture(scope="session")
def journal(database: Database) -> PostgresJournal:
    return PostgresJournal(database)


@pytest.fixture(scope="session")
def dispatch(database: Database) -> PostgresDispatchStore:
    return PostgresDispatchStore(database)


@pytest.fixture(scope="session")
def maintenance(database: Database) -> PostgresMaintenanceStore:
    return PostgresMaintenanceStore(database)


@pytest.fixture(scope="session")
def hosts(database: Database) -> PostgresHostStore:
    return PostgresHostStore(database)


@pytest.fixture(scope="session")
def operations(database: Database) -> PostgresOperationLog:
    return PostgresOperationLog(database)
