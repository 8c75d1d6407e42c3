"""Figures of all tenants together, for monitoring: counts, never a tenant's names or ids."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, get_args

from engine.contracts.agent_views import HostState
from engine.postgres.pool import STATEMENT_TIMEOUT_MS, Database

SETTLES_SECONDS: Final = STATEMENT_TIMEOUT_MS / 1000 + 5
"""A time is taken before its transaction is visible to others; after so long it is."""

ENDED_MAX: Final = 50_000
"""Executions that one look counts."""


class Connections(NamedTuple):
    active: int
    most: int


class EndedExecution(NamedTuple):
    pattern: str
    status: str
    seconds: float


class PostgresFigures:
    """Implements `gateway.figures.DatabaseFigures`. Raises UnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def connections(self) -> Connections:
        async with self._database.maintenance_connection() as connection:
            row = await connection.fetchrow(self._queries["figures.connections"])
        return Connections(int(row["active"]), int(row["most"])) if row is not None else Connections(0, 0)

    async def waiting(self) -> int:
        """Executions that wait for capacity."""
        async with self._database.maintenance_connection() as connection:
            row = await connection.fetchrow(self._queries["capacity.totals"])
        return 0 if row is None else int(row["waiting_high"] + row["waiting_normal"] + row["waiting_low"])

    async def open_by_pattern(self) -> Mapping[str, int]:
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries["figures.open"])
        return {row["pattern"]: int(row["executions"]) for row in rows}

    async def hosts(self) -> Mapping[str, int]:
        """Host processes of agents by state."""
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries["health.counts"])
        found = {row["state"]: int(row["hosts"]) for row in rows}
        return {state: found.get(state, 0) for state in get_args(HostState)}

    async def settled_until(self) -> datetime:
        """Up to when nothing new can appear."""
        async with self._database.maintenance_connection() as connection:
            until: datetime = await connection.fetchval(self._queries["figures.settled_until"], SETTLES_SECONDS)
        return until

    async def ended(self, since: datetime, until: datetime) -> Sequence[EndedExecution]:
        """Executions that ended after `since`, up to `until`."""
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries["figures.ended"], since, until, ENDED_MAX)
        return [EndedExecution(row["pattern"], row["status"], row["seconds"]) for row in rows]

    async def hook_runs(self, since: datetime, until: datetime) -> Mapping[str, int]:
        """Runs of hooks in that time, by status."""
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries["figures.hook_runs"], since, until)
        return {row["status"]: int(row["runs"]) for row in rows}
