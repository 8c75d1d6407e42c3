"""Definitions with their plans, stored under the content's hash."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from engine.contracts.definition import Pattern
from engine.contracts.plan import Plan
from engine.contracts.views import Page, WorkflowDetail, WorkflowSummary
from engine.errors import (
    AlreadyExecutingError,
    InvalidDefinitionError,
    InvalidParametersError,
    NotFoundError,
    UnavailableError,
)
from engine.postgres.documents import client_document, raw_document
from engine.postgres.paging import check_limit, decode_token, encode_token
from engine.postgres.pool import Database

CREATE_TRIES_MAX: Final = 3
"""A definition of the same name can be deleted between the insertion that it stops and the look at it."""


class PostgresDefinitionStore:
    """Implements `engine.ports.DefinitionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, tenant: str, definition: dict[str, Any], content_hash: str, plan: Plan, created_by: str
    ) -> tuple[UUID, bool]:
        queries = self._database.queries
        name, version = definition["name"], definition["version"]
        arguments = (
            tenant,
            name,
            version,
            str(definition["orchestration_pattern"]),
            client_document(definition),
            content_hash,
            plan.model_dump_json(),
            [task.id for task in plan.tasks],
            raw_document(plan.estimated_resources.model_dump()),
            created_by,
        )
        for _ in range(CREATE_TRIES_MAX):
            async with self._database.tenant_connection(tenant) as connection:
                workflow_id = await connection.fetchval(queries["definitions.insert"], *arguments)
                if workflow_id is not None:
                    return workflow_id, True
                stored = await connection.fetchrow(queries["definitions.find"], tenant, name, version)
            if stored is None:
                continue
            if stored["content_hash"] != content_hash:
                message = f"version: another definition is stored as {name} {version}; give this one a new version"
                raise InvalidDefinitionError(message, errors=[message])
            return stored["workflow_id"], False
        raise UnavailableError("the definition of that name and version is being replaced; try again")

    async def get(self, tenant: str, workflow_id: UUID) -> WorkflowDetail:
        row = await self._row("definitions.get", tenant, workflow_id)
        return WorkflowDetail.model_validate(dict(row))

    async def get_plan(self, tenant: str, workflow_id: UUID) -> Plan:
        row = await self._row("definitions.get_plan", tenant, workflow_id)
        return Plan.model_validate_json(row["plan"])

    async def list(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        name: str | None = None,
        pattern: str | None = None,
    ) -> Page[WorkflowSummary]:
        check_limit(limit)
        if pattern is not None and pattern not in set(Pattern):
            raise InvalidParametersError(f"pattern must be one of {', '.join(Pattern)}")
        after = decode_token("definitions", page_token, (datetime, UUID)) or [None, None]
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(
                self._database.queries["definitions.list"], tenant, limit + 1, *after, name, pattern
            )
        items = tuple(WorkflowSummary.model_validate(dict(row)) for row in rows[:limit])
        last = items[-1] if len(rows) > limit else None
        return Page(
            items=items,
            next_page_token=encode_token("definitions", (last.created_at, last.workflow_id)) if last else None,
        )

    async def delete(self, tenant: str, workflow_id: UUID) -> None:
        queries = self._database.queries
        async with self._database.tenant_connection(tenant) as connection:
            if await connection.fetchval(queries["definitions.lock"], tenant, workflow_id) is None:
                raise NotFoundError("no such workflow")
            running = await connection.fetchval(queries["definitions.open_execution"], tenant, workflow_id)
            if running is not None:
                raise AlreadyExecutingError("the workflow is executing", execution_id=str(running))
            await connection.execute(queries["definitions.delete"], tenant, workflow_id)

    async def _row(self, query: str, tenant: str, workflow_id: UUID) -> asyncpg.Record:
        async with self._database.tenant_connection(tenant) as connection:
            row = await connection.fetchrow(self._database.queries[query], tenant, workflow_id)
        if row is None:
            raise NotFoundError("no such workflow")
        return row
