"""`python -m tests.cluster build|up`: builds the cluster's programs, or runs a Kubernetes until SIGTERM."""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cli.connection import read_engine_file
from engine.agents.kubernetes import names
from engine.errors import EngineError
from tests.cluster import program
from tests.cluster.control_plane import ControlPlane
from tests.cluster.images import AGENT_IMAGE
from tests.cluster.node import RealNode, why_no_node
from tests.cluster.program import ClusterUnavailableError, build, build_kwok, build_pause

LOOK_SECONDS: Final = 0.5
PODS_MAX: Final = 10_000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build what is not built yet: minutes the first time")
    up = commands.add_parser("up", help="start a control plane; one line of JSON once it is ready")
    up.add_argument("--node", action="store_true", help="with a node that has real containers; needs root")
    up.add_argument("--redis-of", type=Path, metavar="DATA_DIR", help="pods reach the Redis of the engine on it")
    given = parser.parse_args(arguments)
    try:
        asyncio.run(_build() if given.command == "build" else _up(given.node, given.redis_of))
    except (ClusterUnavailableError, EngineError) as error:
        sys.stderr.write(f"the test cluster is not available: {error}\n")
        return 1
    return 0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _build() -> None:
    say(str(await build()))
    say(str(await build_pause()))
    say(str(await build_kwok()))


async def _up(with_node: bool, redis_of: Path | None) -> None:
    missing = program.why_not() or (why_no_node() if with_node else None)
    if missing is not None:
        raise ClusterUnavailableError(missing)
    if not program.built().exists():
        sys.stderr.write("Building the cluster's program with Go: ten minutes and more, this once.\n")
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-cluster-"))
    control_plane = ControlPlane(folder)
    node = RealNode(control_plane)
    try:
        await control_plane.start()
        answer: dict[str, Any] = {"kubeconfig": str(control_plane.kubeconfig), "url": control_plane.url}
        if with_node:
            await node.start()
            answer["environment"] = await _environment(control_plane, node, redis_of)
        say(json.dumps(answer))
        say(json.dumps({"pods": await _pods_until(ended, control_plane)}))
    finally:
        await node.stop()
        await control_plane.stop()
        shutil.rmtree(folder)


async def _environment(control_plane: ControlPlane, node: RealNode, redis_of: Path | None) -> dict[str, str]:
    """What an engine is to be told so that it has its agents here."""
    environment = {
        "ORCHESTRATOR_ALLOCATOR": "kubernetes",
        "ORCHESTRATOR_KUBERNETES_KUBECONFIG": str(control_plane.kubeconfig),
        "ORCHESTRATOR_KUBERNETES_AGENT_IMAGE": AGENT_IMAGE,
        "ORCHESTRATOR_KUBERNETES_IMAGE_PULL_POLICY": "Never",
    }
    if redis_of is not None:

        def redis() -> tuple[str, int]:
            engine = read_engine_file(redis_of)
            if engine is None:
                raise OSError(f"no engine runs on {redis_of}")
            address = urlsplit(engine["redis_url"])
            return str(address.hostname), int(address.port or 0)

        port = await node.relay(redis)
        environment["ORCHESTRATOR_KUBERNETES_REDIS_URL"] = f"redis://{node.address}:{port}/0"
    return environment


async def _pods_until(ended: asyncio.Event, control_plane: ControlPlane) -> list[dict[str, str]]:
    """The agents' pods that were seen to run."""
    client = control_plane.client()
    seen: dict[str, dict[str, str]] = {}
    while not ended.is_set() and len(seen) < PODS_MAX:
        listed = await client.get(f"/api/v1/pods?labelSelector={names.COMPONENT}%3D{names.AGENT_COMPONENT}")
        for pod in listed["items"]:
            metadata, status = pod["metadata"], pod["status"]
            if status.get("podIP"):
                limits = pod["spec"]["containers"][0]["resources"]["limits"]
                agent = metadata["annotations"].get(names.AGENT, "(pool)")
                seen[metadata["uid"]] = {"name": metadata["name"], "agent": agent, "address": status["podIP"], **limits}
        try:
            await asyncio.wait_for(ended.wait(), LOOK_SECONDS)
        except TimeoutError:
            continue
    return list(seen.values())


if __name__ == "__main__":
    sys.exit(main())
