"""Everything the gateway needs, given to it: nothing in this package connects to anything by itself."""

from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry

from engine.ports import ExecutionFeed, ExecutionStore
from engine.security.tokens import TokenVerifier
from engine.settings import Settings
from gateway.operations.operation import Operations
from gateway.probes import Probe


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
    rate_limit: RateLimit
    probes: tuple[Probe, ...]
    registry: CollectorRegistry
