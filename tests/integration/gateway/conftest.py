"""The gateway as it is served, on real servers and a real port. No worker runs: executions stay in planning."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.embedded.temporal import TemporalServer
from engine.embedded.valkey import ValkeyServer
from engine.postgres.cluster import ClusterUrls
from engine.security.keys import create_key_file
from engine.security.tokens import TokenIssuer
from engine.settings import Settings
from gateway.serve import serve_gateway

ClientOf = Callable[[str], httpx.AsyncClient]


@pytest.fixture(scope="session")
def gateway_settings(
    migrated_database: ClusterUrls,
    valkey_server: ValkeyServer,
    temporal_server: TemporalServer,
    server_directory: Path,
) -> Settings:
    key_file = server_directory / "gateway" / "token.pem"
    create_key_file(key_file)
    values: dict[str, Any] = {
        "database_url": migrated_database.app,
        "redis_url": valkey_server.url,
        "temporal_address": temporal_server.address,
        "temporal_namespace": temporal_server.namespace,
        "task_queue": "gateway-tests",
        "token_key_file": key_file,
        "operation_timeout_seconds": 0.5,
        "rate_limit_exempt_loopback": True,
        "log_level": "WARNING",
    }
    return Settings.model_validate(values)


@pytest.fixture(scope="session")
async def gateway_url(gateway_settings: Settings) -> AsyncIterator[str]:
    thresholds = gc.get_threshold()
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    serving = asyncio.create_task(serve_gateway(gateway_settings, listener))
    await answering(url, serving)
    yield url
    serving.cancel()
    await asyncio.wait({serving})
    gc.unfreeze()
    gc.set_threshold(*thresholds)


async def answering(url: str, serving: asyncio.Task[None]) -> None:
    """Until the server answers; raises what it ended with, if it did."""
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as http:
        while True:
            if serving.done():
                serving.result()
            try:
                if (await http.get(f"{url}/health", timeout=5)).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


@pytest.fixture
async def client_of(gateway_url: str, gateway_settings: Settings) -> AsyncIterator[ClientOf]:
    assert gateway_settings.token_key_file is not None
    issuer = TokenIssuer.from_file(gateway_settings.token_key_file)
    opened: list[httpx.AsyncClient] = []

    def make(tenant: str) -> httpx.AsyncClient:
        token = issuer.issue(tenant=tenant, roles=["admin"])
        headers = {"Authorization": f"Bearer {token}"}
        opened.append(httpx.AsyncClient(base_url=gateway_url, headers=headers, trust_env=False, timeout=60))
        return opened[-1]

    yield make
    for http in opened:
        await http.aclose()


@pytest.fixture
def http(client_of: ClientOf, tenant: str) -> httpx.AsyncClient:
    return client_of(tenant)
