"""The cluster's programs: built once with Go, kept by version and content outside the work tree."""

import asyncio
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from engine.embedded.locks import FileLock

MODULE: Final = Path(__file__).parent / "program"
KUBERNETES_VERSION: Final = "v1.36.3"
KWOK_VERSION: Final = "v0.8.0"
BUILD_SECONDS_MAX: Final = 3_000.0
REQUIRED_VARIABLE: Final = "ORCHESTRATOR_CLUSTER_REQUIRED"
"""Set where the cluster must be there: what would be skipped for want of it fails then."""
USUAL_GO: Final = Path("/usr/local/go/bin/go")


class ClusterUnavailableError(Exception):
    """There is no cluster on this machine; the message says what is missing."""


def why_not() -> str | None:
    """What is missing for having the program; None when nothing is."""
    if sys.platform != "linux":
        return "the test cluster runs on Linux only"
    if built().exists() or _go_command() is not None:
        return None
    return "Go is not installed, which builds the test cluster's program, and there is none built before"


def is_required() -> bool:
    return bool(os.environ.get(REQUIRED_VARIABLE))


def built() -> Path:
    """Where the program stands once it is built: the name changes with the module."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((MODULE / name).read_bytes())
    return cache() / f"cluster-{KUBERNETES_VERSION}-{digest.hexdigest()[:16]}"


async def build() -> Path:
    """The program, built if it is not there: some ten minutes with an empty cache of Go, seconds with a full one."""
    if built().exists():
        return built()
    async with _Building():
        if not built().exists():
            fresh = _beside(built())
            minor = KUBERNETES_VERSION.split(".")[1]
            version = "k8s.io/component-base/version"
            named = (
                f"-X {version}.gitVersion={KUBERNETES_VERSION} -X {version}.gitMajor=1 -X {version}.gitMinor={minor}"
            )
            await _go("build", "-trimpath", f"-ldflags=-s -w {named}", "-o", str(fresh), ".")
            fresh.replace(built())
    return built()


async def build_kwok() -> Path:
    """The folder with `kwok`, which plays the kubelet of nodes on which nothing runs, and the `stages` it goes by.

    The stages are those that its own module carries.
    """
    target = cache() / f"kwok-{KWOK_VERSION}"
    if target.exists():
        return target
    async with _Building():
        if not target.exists():
            fresh = _beside(target)
            fresh.mkdir()
            said = await _go("mod", "download", "-json", f"sigs.k8s.io/kwok@{KWOK_VERSION}", directory=fresh)
            module = Path(_document(said)["Dir"])
            program = f"sigs.k8s.io/kwok/cmd/kwok@{KWOK_VERSION}"
            await _go("install", "-trimpath", "-ldflags=-s -w", program, directory=fresh, GOBIN=str(fresh))
            for name in ("node/fast", "node/heartbeat-with-lease", "pod/fast"):
                shutil.copytree(module / "kustomize" / "stage" / name, fresh / "stages" / name)
            fresh.replace(target)
    return target


async def build_pause() -> Path:
    """The program of the container that holds a pod's namespaces."""
    source = MODULE / "pause" / "main.go"
    target = cache() / f"pause-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        async with _Building():
            fresh = _beside(target)
            await _go("build", "-trimpath", "-ldflags=-s -w", "-o", str(fresh), "./pause", CGO_ENABLED="0")
            fresh.replace(target)
    return target


def cache() -> Path:
    """Where built things are kept between runs."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "orchestration-engine-tests"


def _document(said: str) -> Any:
    return json.loads(said[said.index("{") : said.rindex("}") + 1])


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.{os.getpid()}")


class _Building:
    """One build at a time on this machine: a second one would only take the first one's processors."""

    def __init__(self) -> None:
        self._lock = FileLock(cache() / "build.lock")

    async def __aenter__(self) -> None:
        if sys.platform != "linux":
            raise ClusterUnavailableError("the test cluster runs on Linux only")
        await self._lock.acquire(BUILD_SECONDS_MAX)

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


def _go_command() -> str | None:
    return shutil.which("go") or (str(USUAL_GO) if USUAL_GO.exists() else None)


async def _go(*arguments: str, directory: Path = MODULE, **environment: str) -> str:
    command = _go_command()
    if command is None:
        raise ClusterUnavailableError("Go is not installed, which builds the test cluster's programs")
    process = await asyncio.create_subprocess_exec(
        "nice",
        command,
        *arguments,
        cwd=directory,
        env={**os.environ, "GOFLAGS": "-buildvcs=false", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), BUILD_SECONDS_MAX)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise ClusterUnavailableError(f"go {arguments[0]} failed: {said.decode(errors='replace')[-2000:]}")
    return said.decode(errors="replace")
