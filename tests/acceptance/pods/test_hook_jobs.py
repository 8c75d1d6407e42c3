"""Hooks' commands as Jobs with real containers."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from engine.agents.kubernetes.client import JOBS, PODS, SECRETS, ClusterAccess, KubernetesApi, open_api
from engine.agents.kubernetes.hook_jobs import KubernetesHookJobs
from engine.contracts.hook_jobs import HookJob
from engine.settings import Settings
from tests.cluster.control_plane import ControlPlane
from tests.cluster.images import AGENT_IMAGE
from tests.cluster.node import RealNode

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

NAMESPACE = "hooks"
LOOKS = "import os; print(os.getuid(), os.environ['TOLD'], os.environ['SECRET'], os.listdir('.')); raise SystemExit(3)"
HOG = "held = []\nwhile True: held.append(bytes(bytearray(8_000_000)))"
SLEEPS = "import time; print('begun', flush=True); time.sleep(600)"


@pytest.fixture(scope="module")
async def api(control_plane: ControlPlane, real_node: RealNode) -> AsyncIterator[KubernetesApi]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    await control_plane.client().create("/api/v1/namespaces", document)
    async with open_api(ClusterAccess(control_plane.kubeconfig, None, 10.0)) as api:
        yield api


@pytest.fixture
def jobs(api: KubernetesApi) -> KubernetesHookJobs:
    settings = Settings(
        hooks_job_image=AGENT_IMAGE, hooks_job_namespace=NAMESPACE, kubernetes_image_pull_policy="Never", _env_file=None
    )
    return KubernetesHookJobs(api, settings)


def job(key: str, program: str, timeout_seconds: float = 60.0) -> HookJob:
    return HookJob(
        tenant="acme",
        key=key,
        argv=("python3", "-c", program),
        environment={"TOLD": "$(HOME) as it stands"},
        timeout_seconds=timeout_seconds,
        memory_bytes_max=64 * 1024**2,
        disk_bytes_max=64 * 1024**2,
        output_bytes_max=10_000,
        work_inside="/work",
        secrets={"SECRET": "s3cret"},
    )


async def nothing_stays(api: KubernetesApi) -> None:
    """The Job goes at once; the cluster removes what belonged to it."""
    until = time.monotonic() + 30
    for kind in (JOBS, PODS, SECRETS):
        while True:
            found = (await api.list(kind, NAMESPACE)).items
            if not found:
                break
            assert time.monotonic() < until, found
            await asyncio.sleep(0.2)


async def test_a_command_runs_without_rights_and_its_output_and_exit_code_come_back(
    api: KubernetesApi, jobs: KubernetesHookJobs
) -> None:
    ended = await jobs.run(job("looks", LOOKS))
    assert (ended.exit_code, ended.reason, ended.truncated) == (3, None, False)
    assert ended.output.decode() == "65532 $(HOME) as it stands s3cret []\n"
    await nothing_stays(api)


async def test_one_over_its_memory_is_stopped_and_says_so(api: KubernetesApi, jobs: KubernetesHookJobs) -> None:
    ended = await jobs.run(job("hog", HOG))
    assert (ended.exit_code, ended.reason) == (None, "memory")
    await nothing_stays(api)


async def test_one_over_its_time_is_stopped_and_keeps_what_it_had_printed(
    api: KubernetesApi, jobs: KubernetesHookJobs
) -> None:
    ended = await jobs.run(job("sleeps", SLEEPS, timeout_seconds=8.0))
    assert (ended.exit_code, ended.reason, ended.output) == (None, "time", b"begun\n")
    await nothing_stays(api)
