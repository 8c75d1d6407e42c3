"""Circuit breakers for the gateway, by tenant."""

from collections.abc import Sequence

from engine.contracts.circuits import CircuitView


class FakeBreakers:
    def __init__(self) -> None:
        self.of: dict[str | None, list[CircuitView]] = {}

    async def known(self, tenant: str | None) -> Sequence[CircuitView]:
        return self.of.get(tenant, [])

    async def reset(self, tenant: str | None, service: str) -> bool:
        kept = [view for view in self.of.get(tenant, []) if view.service != service]
        found = len(kept) < len(self.of.get(tenant, []))
        self.of[tenant] = kept
        return found
