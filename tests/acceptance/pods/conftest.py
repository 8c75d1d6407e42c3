"""An engine whose agents are pods with real containers."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.caller import Caller
from tests.acceptance.running import RunningEngine
from tests.cluster.control_plane import ControlPlane
from tests.cluster.images import AGENT_IMAGE
from tests.cluster.node import RealNode

CATALOGUE = """
agents:
  contained:
    entry: python:contained:run
    capabilities: "*"
    slots: 2
"""


@pytest.fixture(scope="module")
async def engine(control_plane: ControlPlane, real_node: RealNode) -> AsyncIterator[RunningEngine]:
    # Not pytest's own directory: PostgreSQL runs as another user when the tests run as root, and could not enter.
    directory = Path(tempfile.mkdtemp(prefix="orchestrator-acceptance-"))
    await asyncio.to_thread(directory.chmod, 0o711)
    catalogue = directory / "catalogue.yaml"
    catalogue.write_text(CATALOGUE)
    engine = RunningEngine(directory, catalogue=catalogue)

    def redis() -> tuple[str, int]:
        address = urlsplit(engine.announced["redis_url"])
        return str(address.hostname), int(address.port or 0)

    port = await real_node.relay(redis)
    engine.environment |= {
        "ORCHESTRATOR_ALLOCATOR": "kubernetes",
        "ORCHESTRATOR_KUBERNETES_KUBECONFIG": str(control_plane.kubeconfig),
        "ORCHESTRATOR_KUBERNETES_AGENT_IMAGE": AGENT_IMAGE,
        "ORCHESTRATOR_KUBERNETES_IMAGE_PULL_POLICY": "Never",
        "ORCHESTRATOR_KUBERNETES_REDIS_URL": f"redis://{real_node.address}:{port}/0",
        "ORCHESTRATOR_KUBERNETES_GRACE_SECONDS": "3",
    }
    try:
        engine.start()
        yield engine
        assert engine.stop() == 0
    finally:
        if engine.running:
            engine.kill()
        shutil.rmtree(directory)


@pytest.fixture
def caller(engine: RunningEngine) -> Caller:
    return engine.caller()
