"""What runs and what waits: the claims of open executions, and starting those whose turn has come."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from engine.contracts.capacity import (
    PRIORITIES,
    CapacityReport,
    CapacityUse,
    Demand,
    QueueState,
    Turn,
    Usage,
    Waiting,
)
from engine.contracts.limits import PAGE_SIZE_MAX
from engine.errors import InvalidParametersError
from engine.ports import OpenExecution
from engine.postgres.maintenance import open_execution
from engine.postgres.pool import Database, check_tenant

_USED: Final = tuple(Usage.model_fields)


class PostgresCapacityStore:
    """Implements `engine.ports.CapacityStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def report(self, tenant: str) -> CapacityReport:
        check_tenant(tenant)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(self._queries["capacity.report"], tenant)
        assert row is not None  # noqa: S101 - a function always answers one row
        return CapacityReport(engine=_use(row["totals"]), tenant=_use(row["own"]), open_executions=row["statuses"])

    async def totals(self) -> CapacityUse:
        async with self._database.maintenance_connection() as connection:
            row = await connection.fetchrow(self._queries["capacity.totals"])
        assert row is not None  # noqa: S101 - a function always answers one row
        return _use(row)

    async def start_waiting(
        self, choose: Callable[[QueueState, int], Turn], limit: int
    ) -> tuple[Sequence[OpenExecution], Sequence[Waiting]]:
        if not 1 <= limit <= PAGE_SIZE_MAX:
            raise InvalidParametersError(f"limit must be between 1 and {PAGE_SIZE_MAX}")
        async with self._database.maintenance_connection() as connection, connection.transaction():
            await connection.execute(self._queries["capacity.lock"])
            waiting = [_waiting(row) for row in await connection.fetch(self._queries["capacity.candidates"], limit)]
            running = await connection.fetch(self._queries["capacity.running"], sorted({w.tenant for w in waiting}))
            totals = await connection.fetchrow(self._queries["capacity.totals"])
            assert totals is not None  # noqa: S101 - a function always answers one row
            state = QueueState(
                used=_use(totals).used,
                running={row["tenant"]: row["executions"] for row in running},
                waiting=tuple(waiting),
                now=datetime.now(UTC),
            )
            turn = choose(state, limit)
            rows = await connection.fetch(
                self._queries["capacity.start"],
                [item.tenant for item in turn.start],
                [item.execution_id for item in turn.start],
            )
        started = {row["execution_id"]: open_execution(row) for row in rows}
        in_order = [started[item.execution_id] for item in turn.start if item.execution_id in started]
        return in_order, turn.impossible

    async def recount(self) -> bool:
        async with self._database.maintenance_connection() as connection:
            changes = [
                await connection.execute(self._queries[name])
                for name in ("capacity.drop_claims", "capacity.recover_claims", "capacity.correct_usage")
            ]
        return any(not change.endswith(" 0") for change in changes)


def _use(row: asyncpg.Record | Mapping[str, Any]) -> CapacityUse:
    # A sum may be below zero for a moment only while somebody repairs it by hand.
    return CapacityUse(
        used=Usage(**{name: max(0, int(row[name])) for name in _USED}),
        waiting={priority: max(0, row[f"waiting_{priority}"]) for priority in PRIORITIES},
    )


def _waiting(row: asyncpg.Record) -> Waiting:
    return Waiting(
        tenant=row["tenant"],
        execution_id=row["execution_id"],
        priority=PRIORITIES[row["priority"]],
        queued_at=row["queued_at"],
        demand=Demand(agents=row["agents"], cpu_micros=row["cpu_micros"], memory_bytes=row["memory_bytes"]),
    )
