import asyncpg
from redis.asyncio import Redis
from temporalio.client import Client

from engine.embedded.postgres import PostgresServer
from engine.embedded.temporal import TemporalServer
from engine.embedded.valkey import ValkeyServer
from engine.postgres.cluster import ClusterUrls


async def test_all_three_serve_their_protocols(
    postgres_server: PostgresServer, valkey_server: ValkeyServer, temporal_server: TemporalServer
) -> None:
    connection = await asyncpg.connect(postgres_server.url)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
    async with Redis.from_url(valkey_server.url) as redis:
        assert await redis.ping()
    client = await Client.connect(temporal_server.address, namespace=temporal_server.namespace)
    assert await client.service_client.check_health()


async def test_the_migrated_database_is_ready_for_the_engine(migrated_database: ClusterUrls) -> None:
    connection = await asyncpg.connect(migrated_database.app)
    assert await connection.fetchval("SELECT to_regclass('public.workflow_executions')") is not None
    await connection.close()
