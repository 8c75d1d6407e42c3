"""Composition root of the gateway's process: connects to the servers, builds the application, serves it."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from typing import Final

import httpx
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from engine.agents.catalogue import CapabilityChecker, load_catalogue
from engine.agents.sizes import AgentSizes
from engine.concurrency import end_all
from engine.contracts.patterns import SUPPORTED_PATTERNS
from engine.errors import ConfigurationError
from engine.events import connection as events_connection
from engine.events.breakers import RedisBreakers
from engine.events.dead_letters import DeadLetters
from engine.events.feed import RedisFeed
from engine.events.figures import StreamBacklogs
from engine.events.functions import Functions
from engine.events.hook_queue import HookChanges, RedisHookQueue
from engine.events.pressure import PressureGauge
from engine.events.tickets import RedisTickets
from engine.ports import DeadLetterBox, ExecutionFeed, Launcher, WatchTickets
from engine.postgres.figures import PostgresFigures
from engine.postgres.stores import Stores
from engine.security.keys import FixedKeys, JwksKeys, KeySource
from engine.security.tokens import TokenVerifier
from engine.settings import Settings
from engine.temporal import connection as temporal_connection
from engine.temporal.launcher import TemporalLauncher
from gateway.app import create_app
from gateway.dependencies import GatewayDependencies
from gateway.figures import EngineFigures, PlanningTimes
from gateway.intake import QueueIntake
from gateway.operations.agents import AgentOperations
from gateway.operations.breakers import BreakerOperations
from gateway.operations.compensations import CompensationOperations
from gateway.operations.control import ControlOperations
from gateway.operations.dead_letters import DeadLetterOperations
from gateway.operations.definitions import AgentSizeLimits, DefinitionOperations
from gateway.operations.executions import ExecutionOperations
from gateway.operations.hooks import HookOperations, HookRequests
from gateway.operations.operation import Operations
from gateway.operations.patterns import PatternOperations
from gateway.operations.planning import PlanningDesk
from gateway.operations.statistics import StatisticsOperations
from gateway.operations.system import SystemOperations
from gateway.operations.table import build_operations
from gateway.operations.watch_tickets import WatchTicketOperations
from gateway.planning import GraphPlanning
from gateway.probes import Probe
from gateway.rate_limit import rate_limit_of
from hooks.actions.runner import HookActions
from hooks.directory import HookDirectory
from planner.planner import Planner

SHUTDOWN_GRACE_SECONDS: Final = 10
WEBSOCKET_MESSAGE_BYTES_MAX: Final = 64 * 1024
"""Clients have nothing to say over a WebSocket."""
WEBSOCKET_PING_SECONDS: Final = 20.0
CONNECTIONS_MAX: Final = 4_000
BACKLOG: Final = 2048
GC_YOUNG_OBJECTS: Final = 20_000
TEMPORAL_TIMEOUT: Final = timedelta(seconds=2)


async def serve_gateway(settings: Settings, listener: socket.socket | None = None) -> None:
    """Serve until cancelled; requests under way are then answered first, for a while.

    Signals are the caller's. `listener`, when given, is bound already, goes before host and port, and is taken over.
    """
    async with gateway_dependencies(settings) as dependencies:
        _tune_garbage_collection()
        server = GatewayServer(server_config(create_app(dependencies), settings))
        sockets = [_named_tcp(listener)] if listener is not None else None
        serving = asyncio.create_task(server.serve(sockets), name="gateway")
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            dependencies.stopping.set()
            server.should_exit = True
            await serving
            raise


class GatewayServer(uvicorn.Server):
    """Leaves signals alone: uvicorn would raise them again, and end the process before anything is closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _tune_garbage_collection() -> None:
    """Planning makes many objects that live long: looking through all of them often costs more than the planning."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, 20, 20)


def _named_tcp(listener: socket.socket) -> socket.socket:
    """asyncio turns Nagle's algorithm off only where the protocol is named; with it, answers take 40 ms longer."""
    return socket.socket(listener.family, listener.type, socket.IPPROTO_TCP, fileno=listener.detach())


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=WEBSOCKET_MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,  # a window of memory a watcher, and messages are small
        ws_ping_interval=WEBSOCKET_PING_SECONDS,
        ws_ping_timeout=WEBSOCKET_PING_SECONDS,
        lifespan="off",
        access_log=False,
        log_level="warning",
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        limit_concurrency=CONNECTIONS_MAX,
        backlog=BACKLOG,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_SECONDS,
    )


@asynccontextmanager
async def gateway_dependencies(settings: Settings) -> AsyncIterator[GatewayDependencies]:
    """Everything connected, and disconnected again in the end."""
    async with AsyncExitStack() as stack:
        verifier = TokenVerifier(await _keys(settings, stack), settings.token_issuer, settings.token_audience)
        stores = await stack.enter_async_context(Stores.open(settings))
        redis = events_connection.connect(settings)
        stack.push_async_callback(redis.aclose)
        feed = RedisFeed(redis)
        stack.push_async_callback(feed.close)
        temporal = await temporal_connection.connect(settings)
        tickets = RedisTickets(redis)
        registry = _registry()
        directory = HookDirectory(stores.hooks, enabled=settings.hooks_enabled)
        changes = asyncio.create_task(HookChanges(redis, directory.forget).run(), name="hook-changes")
        stack.push_async_callback(end_all, [changes])
        yield GatewayDependencies(
            settings=settings,
            verifier=verifier,
            operations=_operations(
                settings,
                stores,
                TemporalLauncher(temporal, settings),
                feed,
                DeadLetters(redis, settings.event_partitions),
                tickets,
                PressureGauge(redis),
                directory,
                RedisHookQueue(redis),
                PlanningTimes(registry),
                RedisBreakers(redis, Functions(redis), settings.event_partitions),
            ),
            executions=stores.executions,
            feed=feed,
            tickets=tickets,
            rate_limit=rate_limit_of(settings, redis),
            probes=(
                Probe("postgresql", stores.database.ping),
                Probe("redis", redis.ping),
                Probe("temporal", partial(temporal.service_client.check_health, timeout=TEMPORAL_TIMEOUT)),
            ),
            intake=QueueIntake(stores.capacity, settings.capacity.waiting, PressureGauge(redis)),
            registry=registry,
            figures=EngineFigures(
                registry, PostgresFigures(stores.database), StreamBacklogs(redis, settings.event_partitions)
            ),
        )


def _operations(
    settings: Settings,
    stores: Stores,
    launcher: Launcher,
    feed: ExecutionFeed,
    letters: DeadLetterBox,
    tickets: WatchTickets,
    pressure: PressureGauge,
    directory: HookDirectory,
    hook_queue: HookRequests,
    planning_times: PlanningTimes,
    breakers: RedisBreakers,
) -> Operations:
    catalogue = load_catalogue(settings.catalogue_file)
    sizes = AgentSizes.of(settings, catalogue)
    desk = PlanningDesk(
        GraphPlanning(Planner(), planning_times.observe), stores.definitions, stores.patterns, sizes.need
    )
    return build_operations(
        DefinitionOperations(
            stores.definitions,
            desk,
            stores.idempotency,
            CapabilityChecker(catalogue, stores.hosts),
            SUPPORTED_PATTERNS,
            AgentSizeLimits(settings.agent_cpu_cores_max, settings.agent_memory_bytes_max, sizes.need, sizes.ceiling),
        ),
        ExecutionOperations(
            desk,
            stores.executions,
            stores.dispatch,
            launcher,
            settings.event_partitions,
            settings.capacity,
            directory,
            settings.allocation_seconds,
        ),
        ControlOperations(stores.executions, launcher, feed, settings.operation_timeout_seconds),
        SystemOperations(stores.capacity, stores.hosts, stores.operations, settings.capacity),
        PatternOperations(stores.patterns, desk),
        stores.operations,
        DeadLetterOperations(letters),
        WatchTicketOperations(stores.executions, tickets),
        HookOperations(stores.hooks, directory, hook_queue, HookActions(settings), enabled=settings.hooks_enabled),
        CompensationOperations(stores.compensations, launcher),
        StatisticsOperations(stores.statistics),
        AgentOperations(stores.host_health),
        BreakerOperations(breakers),
        pressure,
    )


async def _keys(settings: Settings, stack: AsyncExitStack) -> KeySource:
    if settings.token_jwks_url is not None:
        client = await stack.enter_async_context(httpx.AsyncClient(follow_redirects=False))
        return JwksKeys(client, settings.token_jwks_url)
    if settings.token_key_file is None:
        raise ConfigurationError(
            "no key to verify tokens with: set ORCHESTRATOR_TOKEN_KEY_FILE or ORCHESTRATOR_TOKEN_JWKS_URL"
        )
    return await asyncio.to_thread(FixedKeys.from_file, settings.token_key_file)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
