"""The gateway's application over ports in memory, with the real planner and real tokens."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns import SUPPORTED_PATTERNS
from engine.contracts.statistics import RunStatistics, Statistics
from engine.errors import CapabilitiesUnavailableError
from engine.security.keys import FixedKeys, VerificationKey, key_id
from engine.security.tokens import TokenIssuer, TokenVerifier
from engine.settings import Settings
from gateway.app import create_app
from gateway.dependencies import GatewayDependencies
from gateway.operations.agents import AgentOperations
from gateway.operations.breakers import BreakerOperations
from gateway.operations.compensations import CompensationOperations
from gateway.operations.control import ControlOperations
from gateway.operations.dead_letters import DeadLetterOperations
from gateway.operations.definitions import AgentSizeLimits, DefinitionOperations
from gateway.operations.executions import ExecutionOperations
from gateway.operations.hooks import HookOperations
from gateway.operations.patterns import PatternOperations
from gateway.operations.planning import PlanningDesk
from gateway.operations.statistics import StatisticsOperations
from gateway.operations.system import SystemOperations
from gateway.operations.table import build_operations
from gateway.operations.watch_tickets import WatchTicketOperations
from gateway.planning import GraphPlanning
from gateway.probes import Probe
from hooks.directory import HookDirectory
from planner.planner import Planner
from tests.fakes.agents import FakeAgents
from tests.fakes.breakers import FakeBreakers
from tests.fakes.compensations import FakeCompensationStore
from tests.fakes.hooks import FakeActions, FakeHookQueue, FakeHookStore
from tests.fakes.patterns import FakePatternStore
from tests.fakes.stores import (
    FakeDefinitionStore,
    FakeExecutionStore,
    FakeFeed,
    FakeHostStore,
    FakeIdempotencyKeys,
    FakeLauncher,
    FakeOperationLog,
)
from tests.fakes.streams import FakeDeadLetters, FakeDispatchStore, FakeGauge, FakeTickets

GATEWAY_URL = "http://gateway.test"


def definition(**changes: Any) -> dict[str, Any]:
    """The diamond: b and c after a, d after both."""
    made: dict[str, Any] = {
        "name": "diamond",
        "version": "1.0.0",
        "orchestration_pattern": "supervisor",
        "agents": {"worker": {"type": "synthetic", "count": 2, "capabilities": ["work"]}},
        "tasks": [
            {"id": "a", "agent": "worker"},
            {"id": "b", "agent": "worker", "depends_on": ["a"]},
            {"id": "c", "agent": "worker", "depends_on": ["a"]},
            {"id": "d", "agent": "worker", "depends_on": ["b", "c"]},
        ],
        "coordination": {"type": "hybrid"},
    }
    return made | changes


async def known_types_only(tenant: str, definition: WorkflowDefinition) -> None:
    for role, agent in definition.agents.items():
        if agent.type != "synthetic":
            raise CapabilitiesUnavailableError(f"agents.{role}: no agent type {agent.type!r} is known")


class FakeStatistics:
    """Nothing was counted yet, but for what a test puts there."""

    def __init__(self) -> None:
        self.of: dict[str, Statistics] = {}
        self.asked: list[tuple[str, int, UUID | None]] = []

    async def report(
        self, tenant: str, *, limit: int, page_token: str | None = None, workflow_id: UUID | None = None
    ) -> Statistics:
        self.asked.append((tenant, limit, workflow_id))
        return self.of.get(tenant) or Statistics(items=(), total=RunStatistics(executions={}), patterns={})


class FakeRateLimit:
    def __init__(self) -> None:
        self.wait_seconds: float | None = None
        self.asked: list[str] = []

    async def retry_after_seconds(self, address: str) -> float | None:
        self.asked.append(address)
        return self.wait_seconds


@dataclass
class FakeServers:
    """Which servers answer their probe."""

    away: set[str] = field(default_factory=set)

    def probe(self, name: str) -> Probe:
        async def check() -> None:
            if name in self.away:
                raise ConnectionError(f"{name} is away")

        return Probe(name, check)


class Gateway:
    """Everything a test wants to look at or turn."""

    def __init__(self, settings: Settings) -> None:
        key = Ed25519PrivateKey.generate()
        self.key = key
        self.issuer = TokenIssuer(key, "orchestrator", "orchestrator")
        self.definitions = FakeDefinitionStore()
        self.executions = FakeExecutionStore(self.definitions)
        self.dispatch = FakeDispatchStore()
        self.feed = FakeFeed()
        self.launcher = FakeLauncher(self.executions, self.feed)
        self.log = FakeOperationLog()
        self.hosts = FakeHostStore()
        self.idempotency = FakeIdempotencyKeys()
        self.letters = FakeDeadLetters()
        self.tickets = FakeTickets()
        self.pressure = FakeGauge()
        self.compensations = FakeCompensationStore()
        self.statistics = FakeStatistics()
        self.agents = FakeAgents()
        self.breakers = FakeBreakers()
        self.patterns = FakePatternStore()
        self.hooks = FakeHookStore()
        self.hook_queue = FakeHookQueue()
        self.hook_actions = FakeActions()
        directory = HookDirectory(self.hooks, enabled=settings.hooks_enabled)
        self.rate_limit = FakeRateLimit()
        self.servers = FakeServers()
        keys = FixedKeys({key_id(key.public_key()): VerificationKey(key.public_key(), "EdDSA")})
        desk = PlanningDesk(GraphPlanning(Planner()), self.definitions, self.patterns)
        operations = build_operations(
            DefinitionOperations(
                self.definitions,
                desk,
                self.idempotency,
                known_types_only,
                SUPPORTED_PATTERNS,
                AgentSizeLimits(settings.agent_cpu_cores_max, settings.agent_memory_bytes_max),
            ),
            ExecutionOperations(
                desk,
                self.executions,
                self.dispatch,
                self.launcher,
                settings.event_partitions,
                settings.capacity,
                directory,
            ),
            ControlOperations(self.executions, self.launcher, self.feed, settings.operation_timeout_seconds),
            SystemOperations(self.executions, self.hosts, self.log, settings.capacity),
            PatternOperations(self.patterns, desk),
            self.log,
            DeadLetterOperations(self.letters),
            WatchTicketOperations(self.executions, self.tickets),
            HookOperations(self.hooks, directory, self.hook_queue, self.hook_actions, enabled=settings.hooks_enabled),
            CompensationOperations(self.compensations, self.launcher),
            StatisticsOperations(self.statistics),
            AgentOperations(self.agents),
            BreakerOperations(self.breakers),
            self.pressure,
        )
        self.dependencies = GatewayDependencies(
            settings=settings,
            verifier=TokenVerifier(keys, "orchestrator", "orchestrator"),
            operations=operations,
            executions=self.executions,
            feed=self.feed,
            tickets=self.tickets,
            rate_limit=self.rate_limit,
            probes=tuple(self.servers.probe(name) for name in ("postgresql", "redis", "temporal")),
            registry=CollectorRegistry(),
        )
        self.app: FastAPI = create_app(self.dependencies)

    def token(self, role: str = "admin", tenant: str = "default", **more: Any) -> str:
        return self.issuer.issue(tenant=tenant, roles=[role], **more)

    def client(self, role: str | None = "admin", tenant: str = "default") -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token(role, tenant)}"} if role else {}
        transport = httpx.ASGITransport(self.app, client=("192.0.2.7", 40000))
        return httpx.AsyncClient(transport=transport, base_url=GATEWAY_URL, headers=headers)

    def outcomes(self) -> list[tuple[str, str]]:
        return [(record.operation, record.outcome) for _, record in self.log.records]


class Client:
    """Calls as one tenant's principal."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def rpc(self, method: str, params: Any = None, **headers: str) -> dict[str, Any]:
        request: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "id": 1}
        if params is not None:
            request["params"] = params
        answer = await self.http.post("/api/v1/jsonrpc", json=request, headers=headers)
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        assert body["jsonrpc"] == "2.0"
        assert body["id"] == 1
        return body

    async def result(self, method: str, params: Any = None, **headers: str) -> dict[str, Any]:
        body = await self.rpc(method, params, **headers)
        assert "error" not in body, body
        result: dict[str, Any] = body["result"]
        return result

    async def error(self, method: str, params: Any = None, **headers: str) -> dict[str, Any]:
        body = await self.rpc(method, params, **headers)
        assert "result" not in body, body
        error: dict[str, Any] = body["error"]
        return error

    async def execution(self, **changes: Any) -> str:
        workflow = await self.result("workflow.create", definition(**changes))
        started = await self.result("workflow.execute", {"workflow_id": workflow["workflow_id"], "input_data": {}})
        identifier: str = started["execution_id"]
        return identifier


ClientOf = Callable[..., Client]


def settings_of(**changes: Any) -> Settings:
    return Settings(_env_file=None, **{"operation_timeout_seconds": 0.5, **changes})


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(settings_of())


@pytest.fixture
async def client_of(gateway: Gateway) -> AsyncIterator[ClientOf]:
    opened: list[httpx.AsyncClient] = []

    def make(role: str | None = "admin", tenant: str = "default") -> Client:
        opened.append(gateway.client(role, tenant))
        return Client(opened[-1])

    yield make
    for http in opened:
        await http.aclose()


@pytest.fixture
def client(client_of: ClientOf) -> Client:
    return client_of()
