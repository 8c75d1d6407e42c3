"""Helm, built once with Go from pinned modules, and kept beside the test cluster's programs.

`python -m tests.integration.deployment.helm` prints where it stands, and builds it when it is not there.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.cluster import program

MODULE: Final = Path(__file__).parent / "helm_program"
BUILD_SECONDS_MAX: Final = 1_800.0
HELM_SECONDS_MAX: Final = 120.0


def built() -> Path:
    """The name changes with the module."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((MODULE / name).read_bytes())
    return program.cache() / f"helm-{digest.hexdigest()[:16]}"


def why_not() -> str | None:
    """What is missing for having it; None when nothing is."""
    if built().exists() or _go() is not None:
        return None
    return "Go is not installed, which builds Helm, and there is none built before"


def build() -> Path:
    """Some minutes with an empty cache of Go. Two at once do the work twice, and the later one stays."""
    target = built()
    if target.exists():
        return target
    go = _go()
    if go is None:
        raise program.ClusterUnavailableError(str(why_not()))
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    command = ["nice", go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(fresh), "."]
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false"}
    made = subprocess.run(
        command, cwd=MODULE, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX, check=False
    )
    if made.returncode != 0:
        raise program.ClusterUnavailableError(f"Helm cannot be built: {made.stderr[-2000:]}")
    fresh.replace(target)
    return target


def helm(*arguments: str, folder: Path, kubeconfig: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """One command of Helm, whose own files lie in `folder`."""
    environment = {
        "PATH": os.environ.get("PATH", ""), "HOME": str(folder),
        "HELM_CACHE_HOME": str(folder / "cache"), "HELM_CONFIG_HOME": str(folder / "config"),
        "HELM_DATA_HOME": str(folder / "data"),
    }  # fmt: skip
    if kubeconfig is not None:
        environment["KUBECONFIG"] = str(kubeconfig)
    return subprocess.run(
        [str(build()), *arguments],
        env=environment, capture_output=True, text=True, timeout=HELM_SECONDS_MAX, check=False,
    )  # fmt: skip


def _go() -> str | None:
    return shutil.which("go") or (str(program.USUAL_GO) if program.USUAL_GO.exists() else None)


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{build()}\n")
    except program.ClusterUnavailableError as missing:
        sys.exit(str(missing))
