"""The cluster's client when nodes are away, and what else uses it: outages are lost connections, nothing stays open."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.embedded.addresses import hold_free_port
from engine.events.connection import connect
from engine.settings import Settings
from gateway.rate_limit import rate_limit_of
from tests.integration.events.cluster import ValkeyCluster


@pytest.fixture(scope="module")
async def cluster(server_directory: Path) -> AsyncIterator[ValkeyCluster]:
    cluster = ValkeyCluster(server_directory / "cluster-losses")
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


def settings_of(*ports: int, **more: Any) -> Settings:
    return Settings.model_validate(
        {"redis_url": "redis-cluster://" + ",".join(f"127.0.0.1:{p}" for p in ports), **more}
    )


async def test_a_cluster_of_which_no_node_answers_is_a_lost_connection() -> None:
    held = hold_free_port()
    client = connect(settings_of(held.port))
    try:
        with pytest.raises(RedisConnectionError):
            await client.get("orc:{a}:b")
        with pytest.raises(RedisConnectionError):
            await client.pubsub().subscribe("orc:a")
        pipe = client.pipeline(transaction=False)
        pipe.get("orc:{a}:b")
        with pytest.raises(RedisConnectionError):
            await pipe.execute()
    finally:
        await client.aclose()
        held.release()


async def test_a_client_whose_last_command_failed_is_closed_whole(cluster: ValkeyCluster) -> None:
    client: Any = connect(settings_of(*cluster.ports))
    for number in range(20):
        await client.set(f"orc:{{t{number}}}:a", "b")
    nodes = client.get_nodes()
    assert any(connection.is_connected for node in nodes for connection in node._connections)
    client.forget_topology()  # as a lost connection does
    await client.aclose()
    assert not any(connection.is_connected for node in nodes for connection in node._connections)


async def test_the_first_thing_that_a_client_does_may_be_to_subscribe(cluster: ValkeyCluster) -> None:
    client = connect(settings_of(*cluster.ports))
    subscription: Any = client.pubsub()
    await subscription.subscribe("orc:a")
    assert subscription.subscribed
    await subscription.aclose()
    await client.aclose()


async def test_requests_of_an_address_are_counted_on_a_cluster(cluster: ValkeyCluster) -> None:
    settings = settings_of(*cluster.ports, requests_per_minute=2)
    client = connect(settings)
    limit = rate_limit_of(settings, client)
    answers = [await limit.retry_after_seconds("192.0.2.77") for _ in range(3)]
    assert answers[:2] == [None, None]
    assert answers[2] is not None
    await client.aclose()
