"""Thousands of agents at once, a pod each, on nodes on which nothing runs: `python -m benchmarks.pods`.

The control plane is the tests' (etcd, API server, controllers, scheduler), its nodes are kwok's, and the engine is
started as people start it, with `--allocator kubernetes`. One program here speaks the agent protocol for every pod that
it sees running: it registers it, sends its heartbeats and takes its task. Tasks end only when every agent has one, so
that all pods are there at once. In the end all pods must be gone.

What it shows: that every agent gets exactly one pod and one task, how long that takes, how many calls to the API server
a pod costs the engine, and how much memory the engine takes.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from benchmarks.processes import ProcessTree, spent
from engine.agents.kubernetes.client import PODS, ClusterAccess, open_api
from engine.agents.kubernetes.names import agents_selector
from engine.agents.kubernetes.reasons import Standing
from engine.agents.kubernetes.seen import SeenPod, read_deleted_pod, read_pod
from engine.agents.kubernetes.watching import ApiSource, Change, Mirror, Watch
from engine.concurrency import end_all
from engine.events import keys
from tests.acceptance.caller import Caller
from tests.acceptance.running import RunningEngine
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kwok import Kwok

PODS_A_NODE: Final = 110
TENANTS: Final = 4
HEARTBEAT_SECONDS: Final = 20.0
LOST_AFTER_SECONDS: Final = 120.0
TIMEOUT_SECONDS: Final = 3_000.0
GONE_SECONDS_MAX: Final = 900.0
STREAMS_READ_AT_ONCE: Final = 1_000
POLL_SECONDS: Final = 1.0
OWNER: Final = "scale"
TYPE: Final = "synthetic"
BYTES_PER_MIB: Final = 1024**2

Tell = Callable[[str], None]
Assignment = tuple[str, str, dict[str, Any]]
"""Of which execution, where to report, and the assignment itself."""


class NotSoundError(Exception):
    """What was to hold does not."""


@dataclass(slots=True)
class _Spoken:
    """A pod for which the protocol is spoken."""

    pod: SeenPod
    beat_at: float = 0.0
    last_read: str = "0-0"


@dataclass(slots=True)
class Harness:
    """All agents, in one program."""

    redis: Redis
    running: dict[str, _Spoken] = field(default_factory=dict)
    """By host id."""
    pods: dict[str, SeenPod] = field(default_factory=dict)
    """By uid: all that are there."""
    made: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Pods that there were, by tenant, execution and agent."""
    most: int = 0
    given: dict[tuple[str, str], Assignment] = field(default_factory=dict)
    """By execution and task."""
    holders: set[tuple[str, str]] = field(default_factory=set)
    """Executions and agents that have got a task."""
    doubled: int = 0
    """Agents that had two pods at the same moment."""
    _alive: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def changed(self, change: Change[SeenPod]) -> None:
        pod = change.last
        who = (pod.tenant, pod.execution_id or "", pod.agent_id or "")
        if change.now is None:
            if self.pods.pop(pod.uid, None) is not None:
                self._alive[who] -= 1
            self.running.pop(pod.host_id, None)
            return
        if pod.uid not in self.pods:
            self.made[who] += 1
            self._alive[who] += 1
            self.doubled += self._alive[who] > 1
        self.pods[pod.uid] = pod
        self.most = max(self.most, len(self.pods))
        if pod.state.standing is Standing.RUNNING:
            self.running.setdefault(pod.host_id, _Spoken(pod))
        else:
            self.running.pop(pod.host_id, None)

    async def speak(self) -> None:
        """Registrations and heartbeats, for ever."""
        while True:
            now = time.monotonic()
            due = [one for one in self.running.values() if now - one.beat_at >= HEARTBEAT_SECONDS]
            for first in range(0, len(due), STREAMS_READ_AT_ONCE):
                async with self.redis.pipeline(transaction=False) as pipe:
                    for one in due[first : first + STREAMS_READ_AT_ONCE]:
                        kind = "agent.heartbeat" if one.beat_at else "agent.registered"
                        one.beat_at = now
                        pipe.xadd(keys.agents_stream(one.pod.tenant), _said(one.pod, kind))
                    await pipe.execute()
            await asyncio.sleep(0.2)

    async def take(self) -> None:
        """Every pod's stream, for ever."""
        while True:
            spoken = {keys.tasks_stream(one.pod.tenant, host): one for host, one in list(self.running.items())}
            names = list(spoken)
            for first in range(0, len(names), STREAMS_READ_AT_ONCE):
                part: dict[Any, Any] = {name: spoken[name].last_read for name in names[first:][:STREAMS_READ_AT_ONCE]}
                answer: Any = await self.redis.xread(part, count=16)
                for stream, entries in answer or ():
                    await self._report(self._read(spoken[stream.decode()], entries), "agent.task_started")
            await asyncio.sleep(0.2)

    def _read(self, one: _Spoken, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Assignment]:
        one.last_read = entries[-1][0].decode()
        found: list[Assignment] = []
        for _, fields in entries:
            entry = json.loads(fields[b"b"])
            for assignment in entry.get("assign", ()):
                if assignment["agent_id"] != one.pod.agent_id or entry["execution_id"] != one.pod.execution_id:
                    raise NotSoundError(f"{one.pod.name} was given a task of {assignment['agent_id']}")
                found.append((entry["execution_id"], entry["reply_to"], assignment))
                self.given[entry["execution_id"], assignment["task_id"]] = found[-1]
                self.holders.add((entry["execution_id"], assignment["agent_id"]))
        return found

    async def finish(self) -> None:
        """Every task is done."""
        await self._report(list(self.given.values()), "agent.task_completed")

    async def _report(self, assignments: Sequence[Assignment], kind: str) -> None:
        for first in range(0, len(assignments), STREAMS_READ_AT_ONCE):
            async with self.redis.pipeline(transaction=False) as pipe:
                for execution_id, reply_to, assignment in assignments[first : first + STREAMS_READ_AT_ONCE]:
                    pipe.xadd(reply_to, {"x": execution_id, "b": json.dumps([_event(assignment, kind)])})
                await pipe.execute()


def _said(pod: SeenPod, kind: str) -> dict[Any, Any]:
    payload = {
        "host_id": pod.host_id,
        "types": [pod.agent_type],
        "capabilities": "*",
        "slots": 1,
        "dedicated_to": {"execution_id": pod.execution_id, "agent_id": pod.agent_id},
    }
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"event_type": kind, "timestamp": timestamp, "payload": json.dumps(payload)}


def _event(assignment: dict[str, Any], kind: str) -> dict[str, Any]:
    now_ms = int(time.time() * 1000)
    named = {name: assignment[name] for name in ("task_id", "agent_id", "epoch", "attempt")}
    event = {"type": kind, **named, "at_ms": now_ms}
    return event if kind == "agent.task_started" else {**event, "started_at_ms": now_ms, "result": None}


def definition(agents: int) -> dict[str, Any]:
    """As many tasks as agents, of which each takes one at a time."""
    return {
        "name": "many-pods",
        "version": "1",
        "orchestration_pattern": "supervisor",
        "agents": {"worker": {"type": TYPE, "count": agents, "resources": {"cpu": "10m", "memory": "16Mi"}}},
        "tasks": [{"id": f"task-{n}", "agent": "worker", "timeout_seconds": 3_600} for n in range(agents)],
        "coordination": {"type": "hybrid"},
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    """`seconds` by what was reached, from the request to execute on; the last from the end of the tasks on."""

    pods: int
    seconds: dict[str, float]
    calls_a_pod: dict[str, float]
    memory_bytes: dict[str, int]
    cpu_seconds: dict[str, float]

    def text(self) -> str:
        lines = [f"{self.pods} agents, a pod each"]
        lines += [f"{what:<42}{seconds:10.1f} s" for what, seconds in self.seconds.items()]
        lines += [f"calls a pod: {what:<29}{calls:10.3f}" for what, calls in self.calls_a_pod.items()]
        lines += [f"memory of {what:<32}{size / BYTES_PER_MIB:10.0f} MiB" for what, size in self.memory_bytes.items()]
        lines += [f"CPU of {what:<35}{seconds:10.1f} s" for what, seconds in self.cpu_seconds.items()]
        return "\n".join(lines)


async def run(pods: int, tenants: int, tell: Tell) -> Outcome:
    """With a control plane of its own. Raises NotSoundError."""
    with _folder() as directory:
        control_plane = ControlPlane(directory / "kubernetes")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(control_plane.stop)
            await control_plane.start()
            kwok = Kwok(control_plane)
            stack.push_async_callback(kwok.stop)
            await kwok.start()
            return await run_on(control_plane, kwok, directory, pods, tenants, tell)


async def run_on(
    control_plane: ControlPlane, kwok: Kwok, directory: Path, pods: int, tenants: int, tell: Tell
) -> Outcome:
    """With an engine of its own, whose files lie in that directory. Raises NotSoundError."""
    engine = RunningEngine(directory)
    engine.environment |= _environment(control_plane, pods)
    nodes = await kwok.add(-(-pods // PODS_A_NODE) + 1, cpu="64", memory="256Gi", pods=PODS_A_NODE)
    try:
        tell(f"{len(nodes)} nodes are ready")
        await asyncio.to_thread(engine.start)
        return await _measured(control_plane, engine, pods, tenants, tell)
    finally:
        if engine.running:
            await asyncio.to_thread(engine.stop)
        await kwok.remove(nodes)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="orchestrator-pods-") as folder:
        directory = Path(folder)
        directory.chmod(0o711)  # PostgreSQL runs as another user when we are root
        yield directory


def _environment(control_plane: ControlPlane, pods: int) -> dict[str, str]:
    return {
        "ORCHESTRATOR_ALLOCATOR": "kubernetes",
        "ORCHESTRATOR_LOG_JSON": "true",
        "ORCHESTRATOR_KUBERNETES_KUBECONFIG": str(control_plane.kubeconfig),
        "ORCHESTRATOR_KUBERNETES_OWNER": OWNER,
        "ORCHESTRATOR_KUBERNETES_NAMESPACE_PREFIX": "scale-",
        "ORCHESTRATOR_KUBERNETES_AGENT_IMAGE": "agents:scale",
        "ORCHESTRATOR_KUBERNETES_QUOTA_PODS": str(pods),
        "ORCHESTRATOR_KUBERNETES_START_SECONDS": "3000",
        "ORCHESTRATOR_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
        "ORCHESTRATOR_HOST_LOST_AFTER_SECONDS": str(LOST_AFTER_SECONDS),
    }


async def _measured(control_plane: ControlPlane, engine: RunningEngine, pods: int, tenants: int, tell: Tell) -> Outcome:
    tree = ProcessTree(engine.pid)
    access = ClusterAccess(control_plane.kubeconfig, None, 10.0)
    async with open_api(access) as api, Redis.from_url(engine.announced["redis_url"]) as redis:
        harness = Harness(redis)
        source = ApiSource(api, PODS, None, agents_selector(OWNER))
        watch = Watch(source, Mirror(read_pod, read_deleted_pod), harness.changed, "all pods")
        jobs = [asyncio.create_task(job) for job in (watch.run(), harness.speak(), harness.take())]
        try:
            return await _run(engine, tree, harness, jobs, _shares(pods, tenants), tell)
        finally:
            await end_all(jobs)


async def _run(
    engine: RunningEngine,
    tree: ProcessTree,
    harness: Harness,
    jobs: Sequence["asyncio.Task[None]"],
    shares: dict[str, int],
    tell: Tell,
) -> Outcome:
    pods = sum(shares.values())
    callers = {tenant: engine.caller(tenant) for tenant in shares}
    workflows = {
        tenant: callers[tenant].rpc("workflow.create", **definition(share))["workflow_id"]
        for tenant, share in shares.items()
    }
    before, began = tree.cpu_seconds(), time.monotonic()
    executions = {tenant: callers[tenant].execute(workflow, timeout=3_600) for tenant, workflow in workflows.items()}
    seconds: dict[str, float] = {}

    async def reach(what: str, count: Callable[[], int], wanted: int, limit_seconds: float) -> None:
        until, told = time.monotonic() + limit_seconds, time.monotonic()
        while count() != wanted:
            for job in jobs:
                if job.done():
                    job.result()
            if time.monotonic() > until:
                raise NotSoundError(f"{what}: {count()} of {wanted} after {limit_seconds:g} s\n{engine.logs()}")
            if time.monotonic() - told > 10:
                told = time.monotonic()
                tell(f"{what}: {count()} of {wanted}")
            await asyncio.sleep(0.1)
        seconds[what] = time.monotonic() - began
        tell(f"{what}: all {wanted} after {seconds[what]:.1f} s")

    await reach("pods made", lambda: len(harness.pods), pods, TIMEOUT_SECONDS)
    await reach("pods running", lambda: len(harness.running), pods, TIMEOUT_SECONDS)
    await reach("agents with a task", lambda: len(harness.holders), pods, TIMEOUT_SECONDS)
    memory_bytes = {kind: tree.peak_bytes(kind) for kind in ("worker", "fleet", "gateway", "postgres", "valkey")}
    began = time.monotonic()
    await harness.finish()
    for tenant, execution_id in executions.items():
        await _completed(callers[tenant], execution_id)
    seconds["executions completed, from the tasks' end on"] = time.monotonic() - began
    await reach("pods gone, from the tasks' end on", lambda: -len(harness.pods), 0, GONE_SECONDS_MAX)
    cpu_seconds = spent(before, tree.cpu_seconds())
    twice = [who for who, count in harness.made.items() if count != 1]
    if harness.doubled or twice or harness.most != pods:
        raise NotSoundError(f"{harness.most} pods at most, {harness.doubled} doubled, made anew: {twice[:5]}")
    await asyncio.to_thread(engine.stop)  # its processes say at their end what they have asked
    calls = {what: count / pods for what, count in sorted(_calls(engine.data_dir).items())}
    return Outcome(pods, seconds, calls, memory_bytes, cpu_seconds)


async def _completed(caller: Caller, execution_id: str) -> None:
    until = time.monotonic() + GONE_SECONDS_MAX
    while time.monotonic() < until:
        found = await asyncio.to_thread(caller.rpc, "workflow.status", execution_id=execution_id)
        if found["status"] == "completed":
            return
        if found["status"] in ("failed", "cancelled"):
            raise NotSoundError(f"an execution ended as {found['status']}: {found['error_details']}")
        await asyncio.sleep(POLL_SECONDS)
    raise NotSoundError(f"an execution did not end within {GONE_SECONDS_MAX:g} s of its tasks")


def _calls(data_dir: Path) -> Counter[str]:
    """What the engine's processes have asked the API server, as they say at their end."""
    found: Counter[str] = Counter()
    for file in data_dir.rglob("*.log"):
        for line in file.read_text("utf-8", "replace").splitlines():
            if "kubernetes.asked" in line:
                with contextlib.suppress(ValueError):
                    found.update(json.loads(line[line.index("{") :])["calls"])
    return found


def _shares(pods: int, tenants: int) -> dict[str, int]:
    """Agents of each tenant, whose one execution has them all."""
    return {f"scale-{n}": pods // tenants + (n < pods % tenants) for n in range(tenants)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pods", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--tenants", type=int, default=TENANTS)
    options = parser.parse_args(arguments)
    tell = partial(print, file=sys.stderr, flush=True)
    print(asyncio.run(run(options.pods, options.tenants, tell)).text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
