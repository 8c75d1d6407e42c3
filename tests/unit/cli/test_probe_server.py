"""Probes of roles without HTTP of their own, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from cli.probe_server import probed, probes_served
from engine.embedded.addresses import hold_free_port
from engine.errors import ConfigurationError
from engine.settings import Settings


def free_port() -> int:
    held = hold_free_port()
    held.release()
    return held.port


@asynccontextmanager
async def servers() -> AsyncIterator[asyncio.Server]:
    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield server


def settings_of(server_port: int, probe_port: int | None) -> Settings:
    return Settings(
        database_url=f"postgresql://x:y@127.0.0.1:{server_port}/z",
        redis_url=f"redis://127.0.0.1:{server_port}/0",
        temporal_address=f"127.0.0.1:{server_port}",
        host="127.0.0.1",
        probe_port=probe_port,
    )


async def test_the_probes_tell_of_the_process_and_of_its_servers() -> None:
    port = free_port()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
        async with servers() as server:
            settings = settings_of(server.sockets[0].getsockname()[1], port)
            async with probes_served(settings):
                assert (await client.get("/startup")).status_code == 200
                ready = await client.get("/ready")
                assert (ready.status_code, ready.json()["status"]) == (200, "ready")
                server.close()
                gone = await client.get("/ready")
                assert gone.status_code == 503
                assert gone.json()["servers"] == {"postgresql": False, "redis": False, "temporal": False}
                assert (await client.get("/startup")).status_code == 200
                assert (await client.get("/health")).json() == {"status": "ok"}
                assert (await client.get("/metrics")).status_code == 404
        with pytest.raises(httpx.TransportError):
            await client.get("/health")


async def test_a_role_that_never_reached_its_servers_has_not_started() -> None:
    port = free_port()
    async with probes_served(settings_of(free_port(), port)), httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/startup")
        assert (answer.status_code, answer.json()) == (503, {"status": "starting"})


async def test_a_cluster_answers_while_one_of_its_nodes_does() -> None:
    port = free_port()
    async with servers() as server, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
        node = server.sockets[0].getsockname()[1]
        cluster = {"redis_url": f"redis-cluster://me:secret@127.0.0.1:{free_port()},127.0.0.1:{node}"}
        settings = Settings.model_validate(settings_of(node, port).model_dump() | cluster)
        async with probes_served(settings):
            assert (await client.get("/ready")).json()["servers"]["redis"] is True
            server.close()
            assert (await client.get("/ready")).json()["servers"]["redis"] is False


async def test_the_probes_end_with_the_role() -> None:
    port = free_port()
    ended = asyncio.Event()

    async def role() -> None:
        await ended.wait()

    running = asyncio.create_task(probed(settings_of(1, port), role))
    async with httpx.AsyncClient() as client:
        async with asyncio.timeout(5):
            while True:
                try:
                    assert (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0)
        ended.set()
        await running
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{port}/health")


async def test_a_port_that_is_taken_is_a_wrong_setting_and_the_role_is_not_begun() -> None:
    async with servers() as server:
        port = server.sockets[0].getsockname()[1]

        async def role() -> None:
            raise AssertionError("begun")

        with pytest.raises(ConfigurationError, match=f"ORCHESTRATOR_PROBE_PORT {port}"):
            await probed(settings_of(port, port), role)


async def test_without_a_port_there_are_no_probes() -> None:
    done: list[str] = []

    async def role() -> None:
        done.append("role")

    await probed(settings_of(1, None), role)
    assert done == ["role"]
