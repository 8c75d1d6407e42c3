"""What tests take of the cluster. They are skipped where there can be none, unless it is required."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Protocol
from uuid import uuid4

import pytest

from tests.cluster import program
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kwok import Kwok
from tests.cluster.node import RealNode, why_no_node

FIXTURES: Final = frozenset({"cluster_program", "control_plane", "kwok", "kwok_nodes", "real_node"})


class AddNodes(Protocol):
    """Of the fixture `kwok_nodes`."""

    async def __call__(self, nodes: int, *, cpu: str = "8", memory: str = "32Gi", pods: int = 110) -> list[str]: ...


AGENTS_CODE: Final = Path(__file__).resolve().parents[1] / "acceptance" / "agents_code"
NODE_AND_TEST_SECONDS: Final = 900.0
"""Another process may have the machine's one node for a while."""
BUILD_AND_TEST_SECONDS: Final = program.BUILD_SECONDS_MAX + 300.0


@pytest.fixture(scope="session")
async def cluster_program() -> Path:
    """Built if it is not yet; most tests want `control_plane`."""
    if (missing := program.why_not()) is not None:
        unavailable(missing)
    return await program.build()


@pytest.fixture(scope="module")
async def control_plane(cluster_program: Path, server_directory: Path) -> AsyncIterator[ControlPlane]:
    """etcd, API server, controllers and scheduler: `kubeconfig`, `url`, `certificate_authority`, `token`, `client()`.

    Shared by a module's tests, which stay apart by namespaces. Its nodes are those that tests add: pods that other
    modules leave would find room on them.
    """
    directory = server_directory / f"kubernetes-{uuid4().hex[:8]}"
    control_plane = ControlPlane(directory)
    try:
        await control_plane.start()
        yield control_plane
    finally:
        await control_plane.stop()
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


@pytest.fixture(scope="module")
async def kwok(control_plane: ControlPlane) -> AsyncIterator[Kwok]:
    """Plays the kubelets of the nodes that are added to it. Most tests want `kwok_nodes`."""
    kwok = Kwok(control_plane)
    try:
        await kwok.start()
        yield kwok
    finally:
        await kwok.stop()


@pytest.fixture
async def kwok_nodes(kwok: Kwok) -> AsyncIterator[AddNodes]:
    """`await kwok_nodes(3, cpu="8", memory="32Gi", pods=110)`: the nodes' names; gone after the test, pods too."""
    names: list[str] = []

    async def add(nodes: int, *, cpu: str = "8", memory: str = "32Gi", pods: int = 110) -> list[str]:
        added = await kwok.add(nodes, cpu=cpu, memory=memory, pods=pods)
        names.extend(added)
        return added

    yield add
    await kwok.remove(names)


@pytest.fixture(scope="module")
async def real_node(control_plane: ControlPlane) -> AsyncIterator[RealNode]:
    """A node with real containers, until the module ends: there is one on a machine.

    Its image `AGENT_IMAGE` has the SDK, the examples and the tests' agents.
    """
    if (missing := why_no_node()) is not None:
        unavailable(missing)
    node = RealNode(control_plane, (AGENTS_CODE,))
    try:
        await node.start()
        yield node
    finally:
        await node.stop()


def unavailable(missing: str) -> None:
    """Skip the test, or fail where the cluster is required."""
    if program.is_required():
        pytest.fail(f"{missing}; {program.REQUIRED_VARIABLE} is set", pytrace=False)
    pytest.skip(missing)


def put_last(items: list[pytest.Item]) -> None:
    """Tests that need the cluster come after the others, and with the time to build it.

    It may be building in the background meanwhile, which takes minutes where Go's own cache is empty.
    """
    needing = [item for item in items if FIXTURES.intersection(getattr(item, "fixturenames", ()))]
    built = program.built().exists()
    for item in needing:
        if not built:
            item.add_marker(pytest.mark.timeout(BUILD_AND_TEST_SECONDS), append=False)
        elif "real_node" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(NODE_AND_TEST_SECONDS))
    chosen = set(needing)
    items[:] = [item for item in items if item not in chosen] + needing
