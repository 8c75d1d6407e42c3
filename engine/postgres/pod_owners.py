"""Whose pods are still wanted: which executions are open, and which hosts of pools are claimed."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final
from uuid import UUID

from engine.pod_ports import Claim, ExecutionKey, HostKey
from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.pool import Database

BATCH: Final = 5_000


class PostgresPodOwners:
    """Implements `engine.pod_ports.PodOwners`."""

    def __init__(self, database: Database, maintenance: PostgresMaintenanceStore) -> None:
        self._database = database
        self._maintenance = maintenance

    def leader(self, name: str) -> AbstractAsyncContextManager[bool]:
        return self._maintenance.leader(name)

    async def open_among(self, executions: Collection[ExecutionKey]) -> Mapping[ExecutionKey, bool]:
        wanted = [(key.tenant, execution_id) for key in executions if (execution_id := _uuid(key.execution_id))]
        found: dict[ExecutionKey, bool] = {}
        for first in range(0, len(wanted), BATCH):
            batch = wanted[first : first + BATCH]
            async with self._database.maintenance_connection() as connection:
                rows = await connection.fetch(
                    self._database.queries["pod_owners.open_among"],
                    [tenant for tenant, _ in batch],
                    [execution_id for _, execution_id in batch],
                )
            found.update((ExecutionKey(row["tenant"], str(row["execution_id"])), row["open"]) for row in rows)
        return found

    async def claims(self, hosts: Collection[HostKey]) -> Mapping[HostKey, Claim]:
        wanted = list(hosts)
        found: dict[HostKey, Claim] = {}
        for first in range(0, len(wanted), BATCH):
            batch = wanted[first : first + BATCH]
            async with self._database.maintenance_connection() as connection:
                rows = await connection.fetch(
                    self._database.queries["pod_owners.claims"],
                    [host.tenant for host in batch],
                    [host.host_id for host in batch],
                )
            for row in rows:
                claim = Claim(row["execution_id"], row["agent_id"] or "")
                found[HostKey(row["tenant"], row["host_id"])] = claim
        return found

    async def retire_pooled(self, tenant: str, host_ids: Sequence[str]) -> None:
        async with self._database.tenant_connection(tenant) as connection:
            await connection.execute(self._database.queries["pod_owners.retire_pooled"], tenant, list(host_ids))


def _uuid(text: str) -> UUID | None:
    """Labels can be changed by hand: what is no id is nobody's."""
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text else None
