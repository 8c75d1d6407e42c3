import asyncio
import os
from pathlib import Path

import pytest

from tests.cluster import program
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import unavailable


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_admits_and_refuses_as_kubernetes_does(control_plane: ControlPlane) -> None:
    client = control_plane.client()
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "refusing", "labels": labels}}
    await client.create("/api/v1/namespaces", namespace)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bare"},
        "spec": {"automountServiceAccountToken": False, "containers": [{"name": "agent", "image": "agent"}]},
    }
    status, answer = await client.request("POST", "/api/v1/namespaces/refusing/pods", pod)
    assert status == 403, answer
    assert "violates PodSecurity" in answer["message"]


async def test_several_run_side_by_side_and_leave_nothing(control_plane: ControlPlane, tmp_path: Path) -> None:
    other = ControlPlane(tmp_path)
    try:
        await other.start()
        assert other.url != control_plane.url
        name = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "of-the-other"}}
        await other.client().create("/api/v1/namespaces", name)
        status, _ = await control_plane.client().request("GET", "/api/v1/namespaces/of-the-other")
        assert status == 404
        pids = other.pids()
        assert set(pids) == {"etcd", "apiserver", "controllers", "scheduler"}
    finally:
        await other.stop()
    assert not [name for name, pid in pids.items() if is_there(pid)]


async def test_an_api_server_that_was_down_has_kept_everything(control_plane: ControlPlane) -> None:
    client = control_plane.client()
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kept"}}
    await client.create("/api/v1/namespaces", document)
    await control_plane.stop_api_server()
    with pytest.raises(OSError):
        await client.request("GET", "/readyz")
    await control_plane.start_api_server()
    assert (await client.get("/api/v1/namespaces/kept"))["metadata"]["name"] == "kept"


def test_what_is_missing_is_skipped_or_fails_where_the_cluster_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(program.REQUIRED_VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Go"):
        unavailable("no Go")
    monkeypatch.setenv(program.REQUIRED_VARIABLE, "1")
    with pytest.raises(pytest.fail.Exception, match="no Go"):
        unavailable("no Go")


async def test_without_go_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(program, "USUAL_GO", tmp_path / "go")
    assert "Go is not installed" in (program.why_not() or "")
    with pytest.raises(program.ClusterUnavailableError, match="Go is not installed"):
        await asyncio.wait_for(program.build(), 10)
