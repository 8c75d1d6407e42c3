"""Composition root of the worker: workflows and their activities, the bridge, the registry, the reconciler.

`serve` runs the roles that it is given in one process. With both roles in it, events are handed straight to ticks
that wait for them; split over processes, they travel by signal.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

from temporalio.client import Client
from temporalio.worker import Worker

from activities.allocation import AllocationActivities
from activities.circuits import CircuitGate
from activities.compensation import CompensationActivities
from activities.evaluation import EvaluationActivities
from activities.guarding import GuardingActivities
from activities.judging import JudgingActivities
from activities.reading import ReadingActivities
from activities.ticks import TickActivities
from engine.agents.binding import Binder
from engine.agents.catalogue import load_catalogue
from engine.agents.kubernetes.allocation import PodAllocator, open_allocator
from engine.agents.kubernetes.client import ClusterAccess, open_api
from engine.agents.kubernetes.hook_jobs import KubernetesHookJobs
from engine.agents.kubernetes.hook_secrets import KubernetesSecrets
from engine.agents.registry import RegistryMonitor
from engine.agents.sizes import KUBERNETES
from engine.agents.speed import SpeedBook, SpeedRecorder
from engine.concurrency import end_all, run_together
from engine.contracts import activity_names
from engine.errors import ConfigurationError
from engine.events.bodies import GrownBodies
from engine.events.breakers import RedisBreakers
from engine.events.bridge import Bridge
from engine.events.catching_up import CatchingUp
from engine.events.connection import RedisClient
from engine.events.connection import connect as connect_redis
from engine.events.direct import DirectLine
from engine.events.dispatch import Dispatcher
from engine.events.feed import RedisFeed
from engine.events.functions import Functions
from engine.events.hook_queue import HookChanges, HookQueueReader, RedisHookQueue
from engine.events.hosts import HostStreams
from engine.events.lingering import Lingering
from engine.events.partitions import PartitionLeases
from engine.events.pressure import PressureMonitor
from engine.events.progress import ProgressBoard
from engine.events.publisher import FactPublisher, Publications
from engine.observability.log import configure, get_logger
from engine.plans import PlanLoader
from engine.ports import Acknowledged
from engine.postgres.stores import Stores
from engine.recovery.reconciler import Reconciler
from engine.recovery.retention import Retention
from engine.recovery.scheduler import CapacityScheduler
from engine.recovery.statistics import StatisticsKeeper
from engine.settings import Settings
from engine.temporal.connection import connect as connect_temporal
from engine.temporal.launcher import TemporalLauncher
from engine.temporal.versions import deployment_config
from hooks.actions.runner import HookActions
from hooks.directory import HookDirectory
from hooks.guarding import Guardian
from hooks.noticing import HookNotice
from hooks.worker import HookSources, HookWorker
from hooks.workplaces import InWorkDirectories
from workflows.registered import WORKFLOWS as WORKFLOW_CLASSES
from workflows.registered import sandbox

log = get_logger(__name__)

WORKFLOWS = "workflows"
BRIDGE = "bridge"
HOOKS = "hooks"
ROLES = frozenset({WORKFLOWS, BRIDGE, HOOKS})

WORKFLOW_TASKS_MAX = 20
"""More at once would starve each other in one Python process, until the deadlock detector takes it for a hang."""

CACHED_WORKFLOWS_MAX = 2_000
LOCAL_ACTIVITIES_MAX = 400
REGULAR_ACTIVITIES_MAX = 1_000
"""Compensations wait for agents as long as those take: they must not keep out the ticks that a server's outage makes
regular activities."""

BLOCKING_HOOKS_MAX = 200
"""Events whose blocking hooks one hook worker asks at once; how many hooks of them run is the slots' affair."""
GC_ALLOCATIONS, GC_YOUNG, GC_MIDDLE = 50_000, 20, 50
STICKY_TIMEOUT = timedelta(seconds=5)
STOP_GRACE = timedelta(seconds=5)
STOP_MAX = timedelta(seconds=8)


def temporal_worker(
    client: Client,
    settings: Settings,
    ticks: TickActivities,
    allocation: AllocationActivities,
    evaluation: EvaluationActivities,
    errands: Sequence[Callable[..., Any]],
) -> Worker:
    """`errands` are the activities that `workflows.errands` names."""
    return Worker(
        client,
        task_queue=settings.task_queue,
        workflows=list(WORKFLOW_CLASSES),
        activities=[
            ticks.begin_execution,
            ticks.commit_tick,
            ticks.commit_tick_patiently,
            ticks.read_control,
            ticks.load_checkpoint,
            allocation.bind_agents,
            allocation.allocate_agents,
            evaluation.evaluate_tasks,
            *errands,
        ],
        workflow_runner=sandbox(),
        max_cached_workflows=CACHED_WORKFLOWS_MAX,
        max_concurrent_workflow_tasks=WORKFLOW_TASKS_MAX,
        max_concurrent_activities=REGULAR_ACTIVITIES_MAX,
        max_concurrent_local_activities=LOCAL_ACTIVITIES_MAX,
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        graceful_shutdown_timeout=STOP_GRACE,
        deployment_config=deployment_config(settings),
    )


async def run_until_cancelled(worker: Worker) -> None:
    """Cancelling `Worker.run` a second time breaks off its orderly shutdown: ticks under way would not be finished,
    and their executions wait until Temporal finds out. So it is asked to stop, once, and given its time."""
    running = asyncio.ensure_future(worker.run())
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        stopping = asyncio.ensure_future(worker.shutdown())
        deadline = time.monotonic() + STOP_MAX.total_seconds()
        while not running.done() and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running], timeout=left)
        await end_all([stopping, running])
        raise


async def run_bridge(bridge: Bridge) -> None:
    """Its partitions go to others at once, while the workflows of this process still finish their ticks."""
    try:
        await bridge.run()
    finally:
        await bridge.stop()


async def serve(settings: Settings, roles: frozenset[str]) -> None:
    """Run the roles until cancelled, which is how a signal arrives."""
    unknown = roles - ROLES
    if unknown or not roles:
        raise ConfigurationError(f"unknown worker roles {sorted(unknown)}: there are {sorted(ROLES)}")
    configure(settings, "+".join(sorted(roles)))
    async with AsyncExitStack() as stack:
        jobs = await build(settings, roles, stack)
        _collect_less_often()
        log.info("worker.started", roles=sorted(roles), task_queue=settings.task_queue)
        await run_together(jobs)


def _collect_less_often() -> None:
    """A large execution is hundreds of thousands of objects that live long and hold no cycles: the interpreter's own
    thresholds have it look through them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, GC_YOUNG, GC_MIDDLE)


async def build(
    settings: Settings, roles: frozenset[str], stack: AsyncExitStack, actions: HookActions | None = None
) -> Sequence[Callable[[], Awaitable[None]]]:
    """Wire everything; answer what is to be run. Clean-up goes to the stack. `actions` are what hooks may do, where
    that is not what the settings and the installed packages say."""
    stores = await stack.enter_async_context(Stores.open(settings))
    redis = connect_redis(settings)
    stack.push_async_callback(redis.aclose)
    functions = Functions(redis)
    await functions.load()
    client = await connect_temporal(settings, PlanLoader(stores.plans), stores.dispatch)
    launcher = TemporalLauncher(client, settings)
    feed = RedisFeed(redis)
    stack.push_async_callback(feed.close)
    lingering = Lingering()
    jobs: list[Callable[[], Awaitable[None]]] = []
    acknowledged: Acknowledged = _nobody_here
    host_streams = HostStreams(redis, settings.event_partitions)
    stack.push_async_callback(host_streams.close)
    if BRIDGE in roles:
        progress = ProgressBoard(stores.maintenance, feed)
        leases = PartitionLeases(functions, settings.event_partitions)
        reader = connect_redis(settings, repeat=False)
        stack.push_async_callback(reader.aclose)
        parts = (launcher, stores.maintenance, stores.dispatch, lingering, progress)
        bridge = Bridge(redis, reader, leases, *parts, started_held_seconds=settings.started_held_seconds)
        acknowledged = bridge.acknowledged
        pressure = PressureMonitor(redis, leases, stores.hosts, settings.redis_bytes_max)
        publications = Publications(
            redis, functions, leases, stores.publications, settings.published_events_seconds, lambda: pressure.level
        )
        jobs += [
            lambda: run_bridge(bridge),
            publications.run_views,
            publications.run_sweep,
            pressure.run,
            RegistryMonitor(host_streams, stores.hosts, stores.maintenance, stores.host_health, settings).run,
            Reconciler(stores.maintenance, stores.executions, launcher).run,
            CapacityScheduler(stores.capacity, stores.maintenance, stores.executions, launcher, settings.capacity).run,
            Retention(stores.retention, launcher, settings).run,
            StatisticsKeeper(stores.statistics).run,
        ]
    if WORKFLOWS in roles:
        bodies = GrownBodies(stores.dispatch, stores.graphs)
        publisher = CatchingUp(FactPublisher(functions, stores.publications, settings.event_partitions))
        jobs.append(publisher.run)
        dispatcher = Dispatcher(functions, stores.dispatch, bodies, publisher)
        catalogue = load_catalogue(settings.catalogue_file)
        pods: PodAllocator | None = None
        if settings.allocator == KUBERNETES:
            pods = await stack.enter_async_context(
                open_allocator(settings, stores.hosts, host_streams, catalogue, RedisBreakers(redis, functions))
            )
        binder = Binder(stores.hosts, host_streams, catalogue, settings, pods)
        notice = HookNotice(_directory(settings, stores, redis, jobs), stores.hooks, RedisHookQueue(redis))
        speeds = SpeedBook()
        jobs.append(SpeedRecorder(speeds, stores.host_health).run)
        gate = CircuitGate(RedisBreakers(redis, functions, settings.event_partitions))
        ticks = TickActivities(
            stores.journal, stores.executions, dispatcher, lingering, acknowledged, binder, notice, speeds, gate
        )
        evaluation = EvaluationActivities(stores.dispatch, stores.graphs, bodies, settings.reuse_days)
        reading = ReadingActivities(stores.dispatch, stores.graphs, bodies)
        undoing = CompensationActivities(
            stores.compensations, stores.dispatch, bodies, binder, stores.hosts, DirectLine(redis)
        )
        errands = (
            JudgingActivities(stores.dispatch).judge,
            reading.read_context,
            reading.read_event,
            undoing.compensate,
            undoing.next_retry,
            undoing.settle_retry,
        )
        worker = temporal_worker(client, settings, ticks, AllocationActivities(binder), evaluation, errands)
        jobs.append(lambda: run_until_cancelled(worker))
    if HOOKS in roles:
        actions = actions or await _hook_actions(settings, stack)
        jobs += await _hook_jobs(settings, stores, redis, client, feed, stack, actions)
    return jobs


def _directory(
    settings: Settings, stores: Stores, redis: RedisClient, jobs: list[Callable[[], Awaitable[None]]]
) -> HookDirectory:
    """With the job that hears of changes."""
    directory = HookDirectory(stores.hooks, enabled=settings.hooks_enabled)
    jobs.append(HookChanges(redis, directory.forget).run)
    return directory


async def _hook_actions(settings: Settings, stack: AsyncExitStack) -> HookActions:
    if settings.hooks_kubernetes_secret is None and settings.hooks_job_image is None:
        return HookActions(settings)
    api = await stack.enter_async_context(open_api(ClusterAccess.of(settings)))
    sources = [] if settings.hooks_kubernetes_secret is None else [KubernetesSecrets(api, settings)]
    jobs = None if settings.hooks_job_image is None else KubernetesHookJobs(api, settings)
    return HookActions(settings, secret_sources=sources, jobs=jobs)


async def _hook_jobs(
    settings: Settings,
    stores: Stores,
    redis: RedisClient,
    client: Client,
    feed: RedisFeed,
    stack: AsyncExitStack,
    actions: HookActions,
) -> list[Callable[[], Awaitable[None]]]:
    """Asynchronous hooks from the queues, blocking ones as activities."""
    jobs: list[Callable[[], Awaitable[None]]] = []
    stack.push_async_callback(actions.close)
    directory = _directory(settings, stores, redis, jobs)
    reader = connect_redis(settings, repeat=False)
    stack.push_async_callback(reader.aclose)
    worker_id = uuid4().hex
    placed = InWorkDirectories(actions, settings)
    sources = HookSources(stores.hooks, stores.hook_deliveries, stores.dispatch, stores.graphs)
    hook_worker = HookWorker(
        RedisHookQueue(redis), HookQueueReader(redis, reader, worker_id), sources, placed, feed, settings, worker_id
    )
    slots = asyncio.Semaphore(settings.hooks_slots)
    guardian = Guardian(directory, stores.hooks, stores.hook_deliveries, placed, slots)
    guarding = GuardingActivities(guardian, stores.dispatch, GrownBodies(stores.dispatch, stores.graphs))
    activities = Worker(
        client,
        task_queue=settings.task_queue + activity_names.HOOKS_QUEUE,
        activities=[guarding.ask_hooks],
        max_concurrent_activities=BLOCKING_HOOKS_MAX,
        graceful_shutdown_timeout=STOP_GRACE,
    )
    return [*jobs, hook_worker.run, lambda: run_until_cancelled(activities)]


def _nobody_here(tenant: str, execution_id: str, entry_ids: Sequence[str]) -> None:
    """The bridge runs in another process; it notices by looking at the stream."""
