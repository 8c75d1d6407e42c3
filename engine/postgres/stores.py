"""All stores on one database: what a composition root opens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from engine.postgres.capacity import PostgresCapacityStore
from engine.postgres.compensations import PostgresCompensationStore
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.dispatch import PostgresDispatchStore
from engine.postgres.dynamic import PostgresGraphStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.hooks import PostgresHookDeliveries, PostgresHookStore
from engine.postgres.host_health import PostgresHostHealthStore
from engine.postgres.hosts import PostgresHostStore
from engine.postgres.idempotency import PostgresIdempotencyKeys
from engine.postgres.journal import PostgresJournal
from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.operations import PostgresOperationLog
from engine.postgres.patterns import PostgresPatternStore
from engine.postgres.plans import PostgresPlanStore
from engine.postgres.pool import Database
from engine.postgres.publications import PostgresPublicationStore
from engine.postgres.retention import PostgresRetentionStore
from engine.postgres.statistics import PostgresStatisticsStore
from engine.settings import Settings


@dataclass(frozen=True)
class Stores:
    """The ports of `engine.ports` that PostgreSQL implements."""

    database: Database
    definitions: PostgresDefinitionStore
    executions: PostgresExecutionStore
    journal: PostgresJournal
    dispatch: PostgresDispatchStore
    graphs: PostgresGraphStore
    maintenance: PostgresMaintenanceStore
    hosts: PostgresHostStore
    host_health: PostgresHostHealthStore
    operations: PostgresOperationLog
    idempotency: PostgresIdempotencyKeys
    capacity: PostgresCapacityStore
    plans: PostgresPlanStore
    patterns: PostgresPatternStore
    retention: PostgresRetentionStore
    statistics: PostgresStatisticsStore
    hooks: PostgresHookStore
    hook_deliveries: PostgresHookDeliveries
    publications: PostgresPublicationStore
    compensations: PostgresCompensationStore

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        """Connected for the time of the context. Raises UnavailableError or ConfigurationError."""
        database = await Database.connect(settings)
        dispatch = PostgresDispatchStore(database)
        try:
            yield cls(
                database=database,
                definitions=PostgresDefinitionStore(database),
                executions=PostgresExecutionStore(database, settings.capacity),
                journal=PostgresJournal(database),
                dispatch=dispatch,
                graphs=PostgresGraphStore(database, dispatch),
                maintenance=PostgresMaintenanceStore(database),
                hosts=PostgresHostStore(database),
                host_health=PostgresHostHealthStore(database),
                operations=PostgresOperationLog(database),
                idempotency=PostgresIdempotencyKeys(database),
                capacity=PostgresCapacityStore(database),
                plans=PostgresPlanStore(database),
                patterns=PostgresPatternStore(database),
                retention=PostgresRetentionStore(database),
                statistics=PostgresStatisticsStore(database),
                hooks=PostgresHookStore(database, settings.hooks_circuit_seconds),
                hook_deliveries=PostgresHookDeliveries(
                    database, settings.hooks_circuit_failures, settings.hooks_circuit_seconds
                ),
                publications=PostgresPublicationStore(database),
                compensations=PostgresCompensationStore(database),
            )
        finally:
            await database.close()
