"""What tests take of the cluster. They are skipped where there can be none, unless it is required."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import program
from tests.cluster.control_plane import ControlPlane

FIXTURES: Final = frozenset({"control_plane"})
BUILD_AND_TEST_SECONDS: Final = program.BUILD_SECONDS_MAX + 300.0


@pytest.fixture(scope="session")
async def control_plane(server_directory: Path) -> AsyncIterator[ControlPlane]:
    """etcd, API server, controllers and scheduler: `kubeconfig`, `url`, `certificate_authority`, `token`, `client()`.

    Shared by the session's tests, which stay apart by namespaces. Its nodes are those that tests add.
    """
    if (missing := program.why_not()) is not None:
        unavailable(missing)
    control_plane = ControlPlane(server_directory / "kubernetes")
    try:
        await control_plane.start()
        yield control_plane
    finally:
        await control_plane.stop()


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
    for item in needing:
        if item.get_closest_marker("timeout") is None and not program.built().exists():
            item.add_marker(pytest.mark.timeout(BUILD_AND_TEST_SECONDS))
    chosen = set(needing)
    items[:] = [item for item in items if item not in chosen] + needing
