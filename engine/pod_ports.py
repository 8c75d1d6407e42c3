"""What the keeper of pods asks PostgreSQL, as a protocol, beside `engine.ports`: whose pods are still wanted.

Always about many at once.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol


class ExecutionKey(NamedTuple):
    tenant: str
    execution_id: str


class HostKey(NamedTuple):
    tenant: str
    host_id: str


class Claim(NamedTuple):
    """Of a host of a pool, by an agent."""

    execution_id: str
    agent_id: str


class PodOwners(Protocol):
    """Implemented by `engine.postgres.pod_owners`. All methods raise UnavailableError."""

    def leader(self, name: str) -> AbstractAsyncContextManager[bool]:
        """As `MaintenanceStore.leader`."""
        ...

    async def open_among(self, executions: Collection[ExecutionKey]) -> Mapping[ExecutionKey, bool]:
        """Whether they are open; those that are not known are left out."""
        ...

    async def claims(self, hosts: Collection[HostKey]) -> Mapping[HostKey, Claim]:
        """Those of the hosts that an agent has claimed."""
        ...

    async def retire_pooled(self, tenant: str, host_ids: Sequence[str]) -> None:
        """Nobody can claim them any more; those that are claimed already stay as they are."""
        ...
