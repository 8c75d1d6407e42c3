"""Many agents at once, a pod each; ten thousand with `python -m benchmarks.pods`."""

from pathlib import Path

import pytest

from benchmarks import pods
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kwok import Kwok

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


async def test_every_agent_gets_one_pod_and_one_task_and_all_pods_go(
    control_plane: ControlPlane, kwok: Kwok, server_directory: Path
) -> None:
    directory = server_directory / "many-pods"
    directory.mkdir()
    directory.chmod(0o711)
    outcome = await pods.run_on(control_plane, kwok, directory, pods=100, tenants=4, tell=print)
    assert outcome.pods == 100
    assert outcome.calls_a_pod["POST pods"] < 1.2, "each pod is made once, and hardly anything is asked twice"
    assert sum(outcome.calls_a_pod.values()) < 3, outcome.calls_a_pod
