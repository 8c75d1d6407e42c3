"""What fleet, registry and binding need of Redis, as a protocol. Implemented by `engine.events.hosts`."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from engine.contracts.hosts import Group, HostEvent, HostReport, Wanted


class WishPort(Protocol):
    """For binding: asking for hosts."""

    async def want(self, group: Group, hosts: int, until_ms: int) -> None:
        """Ask for at least that many until then, and wake the fleet. The larger wish stands, until both are over."""
        ...


class FleetPort(Protocol):
    """For the fleet. All methods raise UnavailableError when Redis does not answer."""

    async def tenants(self) -> Sequence[str]: ...

    async def wanted(self, tenants: Sequence[str]) -> dict[Group, Wanted]: ...

    async def forget_wish(self, group: Group, until_ms: int) -> None:
        """Remove a wish, unless it was prolonged beyond `until_ms` meanwhile."""
        ...

    async def woken(self, timeout_seconds: float) -> None:
        """Returns when hosts are wanted, at the latest after the timeout."""
        ...

    async def host_gone(self, tenant: str, host_id: str, reason: str = "") -> None:
        """Report a host process as gone to the registry, with the reason where it is known."""
        ...

    async def ensure_logins(self, passwords: dict[str, str]) -> Sequence[str]:
        """Make the logins of these tenants' agents where they are missing. Returns the tenants that were missing."""
        ...


class RegistryPort(WishPort, Protocol):
    """For the registry. All methods raise UnavailableError when Redis does not answer."""

    async def tenants(self) -> Sequence[str]: ...

    async def add_tenants(self, tenants: Sequence[str]) -> None: ...

    async def reports(self, after: dict[str, str], block_seconds: float) -> dict[str, tuple[Sequence[HostReport], str]]:
        """Reports that came after the given entry of each tenant, in order, with the id to go on from."""
        ...

    async def trim_reports(self, before: dict[str, str]) -> None: ...

    async def tell_executions(
        self,
        tenant: str,
        execution_ids: Sequence[UUID],
        event: HostEvent,
        host_id: str,
        reason: str = "",
        speed: float = 1.0,
    ) -> None:
        """`reason`: of a host that is gone, where that is known. `speed`: with `agent.speed`."""
        ...

    async def tell_host_to_renew(self, tenant: str, host_id: str) -> None:
        """It is held to be gone, but speaks: it must drop what it has and come back under a new id."""
        ...

    async def retire_stream(self, tenant: str, host_id: str) -> None:
        """Nobody reads that host's stream any more."""
        ...
