"""Figures of the whole engine, as `/metrics` shows them and alerts and autoscalers ask for them.

Read from PostgreSQL and Redis when somebody asks, at most every few seconds: every gateway shows the same, so that
queries take the maximum and not the sum. What could not be read is left out rather than shown as it was; whether it
was read is a figure of its own. Counters count from the process's start.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.contracts.circuits import CircuitState
from engine.errors import EngineError

FRESH_SECONDS: Final = 5.0
READ_SECONDS_MAX: Final = 3.0

DURATION_BUCKETS: Final = (1, 5, 10, 30, 60, 300, 600, 1800, 3600)
PLANNING_BUCKETS: Final = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10)
TIMED_OUT: Final = "timeout"


class ConnectionCount(Protocol):
    @property
    def active(self) -> int: ...
    @property
    def most(self) -> int: ...


class Ended(Protocol):
    @property
    def pattern(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def seconds(self) -> float: ...


class DatabaseFigures(Protocol):
    async def connections(self) -> ConnectionCount: ...
    async def waiting(self) -> int: ...
    async def open_by_pattern(self) -> Mapping[str, int]: ...
    async def hosts(self) -> Mapping[str, int]: ...
    async def settled_until(self) -> datetime: ...
    async def ended(self, since: datetime, until: datetime) -> Sequence[Ended]: ...
    async def hook_runs(self, since: datetime, until: datetime) -> Mapping[str, int]: ...


class BacklogCount(Protocol):
    @property
    def reports(self) -> int: ...
    @property
    def hooks(self) -> int: ...
    @property
    def dead_letters(self) -> int: ...
    @property
    def dead_letter_bytes(self) -> int: ...


class FailureCount(Protocol):
    @property
    def services(self) -> Mapping[str, int]: ...
    @property
    def agents(self) -> Mapping[str, int]: ...


class StreamFigures(Protocol):
    async def backlogs(self) -> BacklogCount: ...
    async def circuits(self) -> Mapping[str, Collection[str]]: ...
    async def failures(self) -> FailureCount: ...


class EngineFigures(Collector):
    """Shows what the last `refresh` has read."""

    def __init__(
        self,
        registry: CollectorRegistry,
        database: DatabaseFigures,
        streams: StreamFigures,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._streams = streams
        self._clock = clock
        self._refreshing = asyncio.Lock()
        self._read_at = float("-inf")
        self._counted_until: datetime | None = None
        self._gauges: dict[str, list[Metric]] = {}
        self._ended: Counter[tuple[str, str]] = Counter()
        self._hook_runs: Counter[str] = Counter()
        self._seconds = Histogram(
            "workflow_execution_duration_seconds",
            "From the start of an execution to its end",
            ("pattern",),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        registry.register(self)

    async def refresh(self) -> None:
        """Read anew what is older than a few seconds. Never raises: what does not answer is left out."""
        async with self._refreshing:
            if self._clock() - self._read_at < FRESH_SECONDS:
                return
            await asyncio.gather(self._read("postgresql", self._read_database), self._read("redis", self._read_streams))
            self._read_at = self._clock()

    def describe(self) -> list[Metric]:
        """Nothing is asked of the servers for a registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("orchestrator_figures_up", "Whether a server could be asked", labels=("server",))
        for server, gauges in self._gauges.items():
            up.add_metric((server,), float(bool(gauges)))
            yield from gauges
        yield up
        ended = CounterMetricFamily("workflow_executions", "Executions that ended", labels=("pattern", "status"))
        for labels, count in self._ended.items():
            ended.add_metric(labels, count)
        yield ended
        runs = CounterMetricFamily("hooks_executed", "Runs of hooks that ended", labels=("status",))
        for status in ("completed", "failed", TIMED_OUT):
            runs.add_metric((status,), self._hook_runs[status])
        yield runs
        errors = CounterMetricFamily("hooks_errors", "Runs of hooks that did not succeed", labels=("error_type",))
        for error_type in ("failed", TIMED_OUT):
            errors.add_metric((error_type,), self._hook_runs[error_type])
        yield errors
        late = CounterMetricFamily("hooks_timeout", "Runs of hooks that took too long", labels=())
        late.add_metric((), self._hook_runs[TIMED_OUT])
        yield late

    async def _read(self, server: str, read: Callable[[], Awaitable[list[Metric]]]) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS_MAX):
                self._gauges[server] = await read()
        except (EngineError, OSError, TimeoutError) as error:
            self._gauges[server] = []
            structlog.get_logger("gateway.figures").warning("figures.not_read", server=server, error=repr(error))

    async def _read_database(self) -> list[Metric]:
        connections = await self._database.connections()
        waiting = await self._database.waiting()
        active = GaugeMetricFamily("workflow_active_count", "Executions that are open", labels=("pattern",))
        for pattern, executions in (await self._database.open_by_pattern()).items():
            active.add_metric((pattern,), executions)
        hosts = GaugeMetricFamily("agent_hosts", "Host processes of agents that are known", labels=("state",))
        for state, count in (await self._database.hosts()).items():
            hosts.add_metric((state,), count)
        await self._count_ended()
        return [
            active,
            hosts,
            GaugeMetricFamily("workflow_queue_depth", "Executions that wait for capacity", waiting),
            GaugeMetricFamily("postgresql_connections_active", "Connections to the server", connections.active),
            GaugeMetricFamily("postgresql_connections_max", "Connections that the server takes", connections.most),
        ]

    async def _count_ended(self) -> None:
        since, until = self._counted_until, await self._database.settled_until()
        if since is not None and until > since:
            ended = await self._database.ended(since, until)
            runs = await self._database.hook_runs(since, until)
            for execution in ended:
                self._ended[execution.pattern, execution.status] += 1
                self._seconds.labels(execution.pattern).observe(max(0.0, execution.seconds))
            self._hook_runs.update(runs)
        self._counted_until = until if since is None else max(since, until)

    async def _read_streams(self) -> list[Metric]:
        found = await self._streams.backlogs()
        lag = GaugeMetricFamily("redis_consumer_lag", "Entries not yet acknowledged", labels=("consumer_group",))
        lag.add_metric(("orchestrator",), found.reports)
        lag.add_metric(("hook_workers",), found.hooks)
        circuits = GaugeMetricFamily(
            "circuit_breaker_state",
            "1 when a breaker of the service is so",
            labels=("service", "state"),
        )
        for service, states in sorted((await self._streams.circuits()).items()):
            for state in CircuitState:
                circuits.add_metric((service, state.value), float(state.value in states))
        failures = await self._streams.failures()
        counted = CounterMetricFamily(
            "circuit_breaker_failures", "Failures that circuit breakers counted", labels=("service",)
        )
        for service, count in sorted(failures.services.items()):
            counted.add_metric((service,), count)
        of_agents = CounterMetricFamily(
            "agent_failures", "Attempts whose failure speaks against their agent", labels=("agent_type",)
        )
        for agent_type, count in sorted(failures.agents.items()):
            of_agents.add_metric((agent_type,), count)
        return [
            lag,
            circuits,
            counted,
            of_agents,
            GaugeMetricFamily("hooks_queue_depth", "Runs of hooks that wait or are worked on", found.hooks),
            GaugeMetricFamily("redis_dead_letter_queue_size", "Dead letters of all tenants", found.dead_letters),
            GaugeMetricFamily("redis_dead_letter_queue_bytes", "What they hold, about", found.dead_letter_bytes),
        ]


class PlanningTimes:
    """How long the planner takes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "graph_planning_duration_seconds",
            "From a checked definition to its plan",
            buckets=PLANNING_BUCKETS,
            registry=registry,
        )

    def observe(self, seconds: float) -> None:
        self._seconds.observe(seconds)
