"""What conditions, dispatch and reuse need to know of graphs that change while they run."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from engine.ports import CachedResult, TaskAddition
from engine.postgres.dispatch import PostgresDispatchStore, decompressed
from engine.postgres.pool import Database

FORGET_MAX: Final = 100
"""Outdated results deleted beside a look-up."""


class PostgresGraphStore:
    """Implements `engine.ports.GraphStore`."""

    def __init__(self, database: Database, payloads: PostgresDispatchStore) -> None:
        self._database = database
        self._queries = database.queries
        self._payloads = payloads

    async def describe(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> Mapping[str, TaskAddition]:
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._queries["dynamic.describe"], tenant, execution_id, list(task_ids))
        return {
            row["task_id"]: TaskAddition(
                parent=row["parent"],
                element=row["element"],
                items_ref=row["items_ref"],
                body=row["body"],
                waits_for=tuple(row["waits_for"] or ()),
                has_event=row["event_id"] is not None,
                event=row["payload"],
            )
            for row in rows
        }

    async def event_payloads(self, tenant: str, execution_id: UUID, event_ids: Sequence[str]) -> Mapping[str, Any]:
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(
                self._queries["dynamic.event_payloads"], tenant, execution_id, list(event_ids)
            )
        return {row["event_id"]: row["payload"] for row in rows}

    async def take_results(
        self, tenant: str, execution_id: UUID, keys: Mapping[str, str], days: float
    ) -> Mapping[str, CachedResult]:
        names, hashes = list(keys), list(keys.values())
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._queries["dynamic.cached"], tenant, names, hashes, days)
            missing = [name for name in names if name not in {row["task_id"] for row in rows}]
            if missing:
                await connection.execute(
                    self._queries["dynamic.remember_keys"],
                    tenant,
                    execution_id,
                    missing,
                    [keys[name] for name in missing],
                )
                await connection.execute(self._queries["dynamic.forget_cached"], tenant, days, FORGET_MAX)
        found: dict[str, CachedResult] = {}
        for row in rows:
            if row["body"] is None:
                found[row["task_id"]] = CachedResult(result=row["result"])
            else:
                payload = await decompressed(row["encoding"], row["body"])
                reference = await self._payloads.put_payload(tenant, execution_id, payload)
                found[row["task_id"]] = CachedResult(result_ref=reference)
        return found
