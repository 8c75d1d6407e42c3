"""Each workload's command with the chart's own settings, as processes on real servers: it starts, answers the probes of
its pod, and ends in order when it is asked to."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from engine.embedded.addresses import LOOPBACK, hold_free_port
from engine.embedded.temporal import TemporalServer
from engine.embedded.valkey import ValkeyServer
from engine.postgres.cluster import ClusterUrls
from engine.security.keys import create_key_file
from tests.cluster.control_plane import ControlPlane
from tests.integration.deployment.chart import ROOT, found, render

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
VALKEY_DATABASE: Final = 9


@pytest.mark.parametrize("part", ["gateway", "worker", "bridge", "keeper", "hooks"])
async def test_a_workload_starts_answers_its_probes_and_ends_in_order(
    control_plane: ControlPlane,
    migrated_database: ClusterUrls,
    valkey_server: ValkeyServer,
    temporal_server: TemporalServer,
    tmp_path: Path,
    part: str,
) -> None:
    documents = render(tmp_path, {})
    (container,) = found(documents, "Deployment", f"orchestrator-{part}")["spec"]["template"]["spec"]["containers"]
    held = hold_free_port()
    held.release()
    environment = {
        "PATH": os.environ["PATH"],
        **found(documents, "ConfigMap", "orchestrator-settings")["data"],
        **_servers(migrated_database, valkey_server, temporal_server),
        **_files(tmp_path),
        "ORCHESTRATOR_HOST": LOOPBACK,
        "ORCHESTRATOR_TASK_QUEUE": f"deployed-{part}",
        "ORCHESTRATOR_KUBERNETES_KUBECONFIG": str(control_plane.kubeconfig),
        "ORCHESTRATOR_KUBERNETES_NAMESPACE_PREFIX": "roles-",
        container["env"][0]["name"]: str(held.port),
    }
    said = tmp_path / "log"
    with said.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "cli", *container["args"],
            cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            for name in ("startup", "liveness", "readiness"):
                await _answers(held.port, container[f"{name}Probe"]["httpGet"]["path"], process, said)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), STOP_SECONDS) == 0, _end_of(said)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert "Traceback" not in said.read_text()


def _servers(database: ClusterUrls, valkey: ValkeyServer, temporal: TemporalServer) -> dict[str, str]:
    return {
        "DATABASE_URL": database.app,
        "REDIS_URL": valkey.url.removesuffix("/0") + f"/{VALKEY_DATABASE}",
        "TEMPORAL_ADDRESS": temporal.address,
        "TEMPORAL_NAMESPACE": temporal.namespace,
    }


def _files(folder: Path) -> dict[str, str]:
    """What the pods mount."""
    create_key_file(folder / "token-key.pem")
    (folder / "agent-secret").write_bytes(b"s" * 32)
    return {
        "ORCHESTRATOR_TOKEN_KEY_FILE": str(folder / "token-key.pem"),
        "ORCHESTRATOR_AGENT_SECRET_FILE": str(folder / "agent-secret"),
        "ORCHESTRATOR_DATA_DIR": str(folder / "data"),
    }


async def _answers(port: int, path: str, process: Any, said: Path) -> None:
    ends = time.monotonic() + READY_SECONDS
    async with httpx.AsyncClient(timeout=5) as client:
        while True:
            assert process.returncode is None, _end_of(said)
            try:
                if (await client.get(f"http://{LOOPBACK}:{port}{path}")).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < ends, _end_of(said)
            await asyncio.sleep(0.1)


def _end_of(log: Path) -> str:
    return log.read_text()[-2000:]
