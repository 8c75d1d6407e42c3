"""Everything the gateway needs, given to it: nothing in this package connects to anything by itself."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry

from engine.ports import ExecutionFeed, ExecutionStore, WatchTickets
from engine.security.tokens import TokenVerifier
from engine.settings import Settings
from gateway.figures import EngineFigures
from gateway.operations.operation import Operations
from gateway.probes import Intake, Probe


class RateLimit(Protocol):
    async def retry_after_seconds(self, address: str) -> float | None:
        """Count one request; None when it may pass."""
        ...


@dataclass(frozen=True, slots=True)
class GatewayDependencies:
    settings: Settings
    verifier: TokenVerifier
    operations: Operations
    executions: ExecutionStore
    feed: ExecutionFeed
    tickets: WatchTickets
    rate_limit: RateLimit
    probes: tuple[Probe, ...]
    registry: CollectorRegistry
    figures: EngineFigures | None = None
    """What `/metrics` shows of the whole engine; without it, of this process only."""
    intake: Intake | None = None
    """Whether the queue has room; without it, being ready is that the servers answer."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is to end: what streams without an end, ends then."""
