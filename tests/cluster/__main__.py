"""`python -m tests.cluster build|up`: builds the cluster's programs, or starts a control plane until SIGTERM."""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from engine.errors import EngineError
from tests.cluster.control_plane import ControlPlane
from tests.cluster.program import ClusterUnavailableError, build, build_kwok


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build what is not built yet: minutes the first time")
    up = commands.add_parser("up", help="start a control plane; one line of JSON once it is ready")
    up.add_argument("--directory", type=Path, help="its data; a temporary folder, removed at the end, unless given")
    given = parser.parse_args(arguments)
    try:
        asyncio.run(_build() if given.command == "build" else _up(given.directory))
    except (ClusterUnavailableError, EngineError) as error:
        sys.stderr.write(f"the test cluster is not available: {error}\n")
        return 1
    return 0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _build() -> None:
    say(str(await build()))
    say(str(await build_kwok()))


async def _up(directory: Path | None) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    folder = directory or Path(tempfile.mkdtemp(prefix="orchestrator-cluster-"))
    control_plane = ControlPlane(folder)
    try:
        await control_plane.start()
        say(json.dumps({"kubeconfig": str(control_plane.kubeconfig), "url": control_plane.url}))
        await ended.wait()
    finally:
        await control_plane.stop()
        if directory is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
