"""`make demo ALLOCATOR=kubernetes`, as people run it."""

import asyncio
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cluster.fixtures import unavailable
from tests.cluster.node import BRIDGE, LOCK_SECONDS_MAX, node_lock, why_no_node

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[3]
DEMO_SECONDS = 600


def test_the_demos_agents_work_in_containers_and_nothing_stays(cluster_program: Path) -> None:
    if (missing := why_no_node()) is not None:
        unavailable(missing)
    # Not pytest's own directory: PostgreSQL runs as another user when the tests run as root, and could not enter.
    with tempfile.TemporaryDirectory(prefix="orchestrator-demo-") as directory:
        Path(directory).chmod(0o711)
        result = subprocess.run(
            [sys.executable, "-m", "examples.containers", "handoff", "--data-dir", str(Path(directory) / "data")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=DEMO_SECONDS,
            check=False,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "executing -> completed" in result.stdout
    assert re.search(r"^5 pods ran in containers", result.stdout, re.MULTILINE)
    assert len(re.findall(r" 300m CPU  256Mi  10\.99\.", result.stdout)) == 5
    assert BRIDGE not in asyncio.run(_links_between_nodes())


async def _links_between_nodes() -> set[str]:
    """Of the machine while nobody has a node: another test's may have started since the demo's ended."""
    lock = node_lock()
    await lock.acquire(LOCK_SECONDS_MAX)
    try:
        return {name for _, name in socket.if_nameindex()}
    finally:
        lock.release()
