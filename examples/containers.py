"""`python -m examples.containers PATTERN`: runs an example whose agents are pods, in containers on this machine.

`make demo ALLOCATOR=kubernetes` is this. The Kubernetes is the tests' own, a program beside this one, which takes all
of it away again when it is told to end, or when this one ends in whatever way.
"""

import argparse
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from cli.outcome import ExitCode
from engine.embedded import spawn
from examples.registry import find_example

ROOT: Final = Path(__file__).resolve().parents[1]
CLUSTER: Final = (sys.executable, "-m", "tests.cluster", "up", "--node")
READY_SECONDS: Final = 3600.0
"""The first time, the cluster's program is built: ten minutes and more."""
STOP_SECONDS: Final = 120.0
CPU_CORES: Final = {"editing": 0.3, "estimation": 0.1, "tournament": 0.4}
"""Examples whose agents need nothing but Python, with what each agent's pod gets: two cores are enough for all."""


class ClusterEndedError(Exception):
    """It has said why on stderr."""


def main(arguments: list[str] | None = None, cluster: Sequence[str] = CLUSTER) -> int:
    parser = argparse.ArgumentParser("examples.containers", description=__doc__)
    parser.add_argument("pattern", help="handoff, swarm or custom, or the name of its example")
    parser.add_argument("--data-dir", type=Path, default=ROOT / ".data" / "demo", help="the engine's data")
    given, more = parser.parse_known_args(arguments)
    example = find_example(given.pattern)
    if example is None or example.module not in CPU_CORES:
        known = ", ".join(sorted(CPU_CORES))
        print(
            f"the agents of {given.pattern!r} need more than Python, or one disk; in containers there are: {known}",
            file=sys.stderr,
        )
        return ExitCode.USAGE
    data_dir = given.data_dir.resolve()
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        print("Starting Kubernetes: etcd, API server, controllers, scheduler, a node with containers", flush=True)
        with _cluster(cluster, data_dir) as environment:
            environment["ORCHESTRATOR_KUBERNETES_AGENT_CPU_CORES"] = str(CPU_CORES[example.module])
            return _run(
                [sys.executable, "-m", f"examples.{example.module}", "--data-dir", str(data_dir), *more], environment
            )
    except ClusterEndedError:
        return ExitCode.UNAVAILABLE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """As Ctrl-C does: the cluster must be removed on the way out."""
    raise KeyboardInterrupt


@contextmanager
def _cluster(command: Sequence[str], data_dir: Path) -> Iterator[dict[str, str]]:
    """The settings with which an engine on that data directory has its agents in pods there."""
    bound = [sys.executable, spawn.__file__, str(os.getpid()), str(int(signal.SIGTERM)), "-"]
    process = subprocess.Popen(
        [*bound, *command, "--redis-of", str(data_dir)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None  # it is a pipe  # noqa: S101
    try:
        readable, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
        line = process.stdout.readline() if readable else ""
        if not line:
            raise ClusterEndedError
        yield {**os.environ, **json.loads(line)["environment"]}
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        print("Stopping Kubernetes.", flush=True)
        process.send_signal(signal.SIGTERM)
    try:
        said, _ = process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    if said.strip():
        _show_pods(json.loads(said)["pods"])


def _show_pods(pods: list[dict[str, Any]]) -> None:
    print(f"{len(pods)} pods ran in containers of their own, each with an agent of the execution:")
    for pod in pods:
        print(f"  {pod['agent']:<16} {pod['name']:<40} {pod['cpu']:>5} CPU {pod['memory']:>6}  {pod['address']}")


def _run(command: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
